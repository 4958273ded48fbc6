import { type Deferred, deferred, type ScriptedConn } from "./conn.ts";

/** What a validation was asked, and by what the test answers. */
export interface Question extends Deferred<boolean> {
  readonly conn: ScriptedConn;
  readonly signal: AbortSignal;
}

/** A validation that the test answers, or that answers at once. */
export function questions(answer?: boolean) {
  const asked: Question[] = [];
  const validate = (conn: ScriptedConn, { signal }: { signal: AbortSignal }) => {
    const question = { ...deferred<boolean>(), conn, signal };
    asked.push(question);
    if (answer !== undefined) question.resolve(answer);
    return question.promise;
  };
  return { asked, validate };
}
