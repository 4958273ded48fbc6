import { grpc } from "./grpc.ts";
import { invoke } from "./invoke.ts";
import { lease } from "./lease.ts";
import { race } from "./race.ts";
import { type Line, long, type Section, short } from "./row.ts";
import { stream } from "./stream.ts";
import { format } from "./table.ts";

const sections: readonly Section[] = [invoke, lease, waiters, stream, grpc];

import { waiters } from "./waiters.ts";

const args = process.argv.slice(2);
const pace = args.includes("--short") ? short : long;
const names = args.filter((arg) => !arg.startsWith("--"));
if (args.includes("--race")) {
  const [name, ...chosen] = names;
  const { contenders } = sections.find((section) => section.name === name) ?? {};
  const taking = await Promise.all(
    chosen.map(async (one) => {
      const make = contenders?.[one];
      if (make === undefined) throw new Error(one);
      return make();
    }),
  );
  const result = await race(taking, pace);
  console.log(JSON.stringify(Object.fromEntries(chosen.map((one) => [one, result.samples(one)]))));
} else {
  for (const section of sections) {
    if (names.length > 0 && !names.includes(section.name)) continue;
    console.log(section.name, section.title);
    for await (const line of section.run(pace)) console.log(format(line satisfies Line));
  }
}
process.exit();
