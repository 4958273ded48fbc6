import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { SourceMap } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import ts from "typescript-5.4";
import { Random } from "../../src/testing/random.ts";
import { makeRun } from "../support/simulator/plan.ts";
import { playRun } from "../support/simulator/run.ts";

/**
 * Whether the tests would notice: `npm run test:mutants -- [file[:line ...] ...] [--sample n] [--seed s] [--jobs n]`. It changes one thing at a
 * time in a copy of what was compiled, and runs tests until one fails; a change that none notices is printed. A sample is the same for
 * the same seed. Other modes are for the processes that it starts.
 */
const root = fileURLToPath(new URL("../../../", import.meta.url));

/** What is changed by default, and the suites that are asked. */
const asked: Readonly<Record<string, "pool" | "drpc">> = {
  "pool/entry": "pool",
  "pool/wait-queue": "pool",
  "pool/dispatcher": "pool",
  "pool/selector": "pool",
  "pool/capacity": "pool",
  "drpc/wire": "drpc",
};

/** Suites that measure, or run in processes of their own: too slow to be asked of each mutant. */
const left = /^(scale-|memory|outage|process|suites)/;

/** A mutant: what stands between two places of the file instead. */
interface Mutant {
  readonly from: number;
  readonly to: number;
  readonly text: string;
  readonly what: string;
}

/** All suites of a folder, in this one process; some of them first. */
async function runSuites(folder: string, first: readonly string[]): Promise<void> {
  process.setMaxListeners(0);
  const url = new URL(`../${folder}/`, import.meta.url);
  const suites = readdirSync(url).filter((name) => name.endsWith(".test.js") && !left.test(name));
  for (const suite of new Set([...first, ...suites])) await import(new URL(suite, url).href);
}

/** Some runs of the simulator, to the first that breaks a rule. */
async function runSimulator(): Promise<void> {
  for (let seed = 1; seed <= 60; seed++) {
    if ((await playRun(makeRun(seed, 100))) !== undefined) process.exit(1);
  }
}

async function main(): Promise<void> {
  const files: string[] = [];
  const numbers = new Map([
    ["--sample", 60],
    ["--seed", 1],
    ["--jobs", 1],
  ]);
  const args = process.argv.slice(2);
  for (let arg = args.shift(); arg !== undefined; arg = args.shift()) {
    if (numbers.has(arg)) numbers.set(arg, Number(args.shift()));
    else files.push(arg.replace(/^src\/|\.ts$/g, ""));
  }
  const sample = numbers.get("--sample") ?? 0;
  const copies = Array.from({ length: numbers.get("--jobs") ?? 1 }, copyBuild);
  process.on("exit", () => {
    for (const copy of copies) rmSync(copy, { recursive: true, force: true });
  });
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));
  for (const given of files.length > 0 ? files : Object.keys(asked)) {
    const [file = "", ...lines] = given.split(":");
    const code = readFileSync(join(root, ".build/src", `${file}.js`), "utf8");
    const lineOf = lineFinder(file, code);
    const isAsked = ({ from }: Mutant): boolean => lines.length === 0 || lines.includes(`${lineOf(from)}`);
    const all = mutantsOf(code).filter(isAsked);
    const random = new Random(numbers.get("--seed") ?? 1);
    const chosen = all
      .map((mutant) => ({ mutant, rank: random.next() }))
      .sort((a, b) => a.rank - b.rank)
      .slice(0, sample)
      .map(({ mutant }) => mutant)
      .sort((a, b) => a.from - b.from);
    console.log(`${file}: ${chosen.length} of ${all.length} mutants`);
    const notices: Notices = new Map();
    const queue = [...chosen];
    let killed = 0;
    await Promise.all(
      copies.map(async (copy) => {
        for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
          if (await isNoticed(copy, file, code, mutant, notices)) killed++;
          else console.log(described(file, code, lineOf(mutant.from), mutant));
        }
      }),
    );
    console.log(`${file}: ${killed} of ${chosen.length} killed, ${((killed / chosen.length) * 100).toFixed(1)} %`);
  }
}

/** What runs of the repository, in a folder of its own: mutants are written there. */
function copyBuild(): string {
  const copy = mkdtempSync(join(tmpdir(), "mutants-"));
  cpSync(join(root, ".build"), join(copy, ".build"), { recursive: true });
  cpSync(join(root, "package.json"), join(copy, "package.json"));
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  return copy;
}

/** How many mutants of a file each suite has noticed: those that notice most are asked first. */
type Notices = Map<string, number>;

/** Whether a test fails, or comes to no end. The simulator is asked first, since it answers sooner. */
async function isNoticed(copy: string, file: string, code: string, mutant: Mutant, notices: Notices): Promise<boolean> {
  const path = join(copy, ".build/src", `${file}.js`);
  writeFileSync(path, code.slice(0, mutant.from) + mutant.text + code.slice(mutant.to));
  try {
    const suites = asked[file] ?? file.slice(0, file.indexOf("/"));
    const first = [...notices].sort(([, a], [, b]) => b - a).map(([suite]) => suite);
    const program = ".build/test/mutants/run.js";
    if (suites === "pool" && (await fails(copy, 60_000, program, "--simulator"))) return true;
    const noticed = await fails(copy, 180_000, "--test-reporter=tap", program, "--suites", suites, ...first);
    if (typeof noticed === "string") notices.set(noticed, (notices.get(noticed) ?? 0) + 1);
    return noticed !== false;
  } finally {
    writeFileSync(path, code);
  }
}

/** Runs a program to its end, to the first failure that it tells of, or to its time limit. Returns which suite failed, where that is known. */
function fails(cwd: string, mostMs: number, ...args: string[]): Promise<boolean | string> {
  const child = spawn(process.execPath, ["--expose-gc", ...args], { cwd, stdio: ["ignore", "pipe", "ignore"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), mostMs);
  let suite: string | undefined;
  let hasFailed = false;
  createInterface(child.stdout).on("line", (line) => {
    hasFailed ||= /^\s*not ok /.test(line);
    if (!hasFailed) return;
    suite ??= /location: '.*\/([\w-]+\.test\.js)/.exec(line)?.[1];
    if (suite !== undefined || line.trim() === "...") child.kill("SIGKILL");
  });
  return new Promise((resolve) => {
    child.on("close", (status) => {
      clearTimeout(timer);
      resolve(suite ?? status !== 0);
    });
  });
}

/** Which line of the source a place in what was compiled comes from. */
function lineFinder(file: string, code: string): (at: number) => number {
  const map = new SourceMap(JSON.parse(readFileSync(join(root, ".build/src", `${file}.js.map`), "utf8")));
  return (at) => {
    const before = code.slice(0, at).split("\n");
    const found = map.findEntry(before.length - 1, (before.at(-1) ?? "").length);
    return "originalLine" in found ? found.originalLine + 1 : 0;
  };
}

/** A survivor: where it stands in the source, what was done, and what stands there. */
function described(file: string, code: string, line: number, { from, to, what }: Mutant): string {
  const source = readFileSync(join(root, "src", `${file}.ts`), "utf8").split("\n")[line - 1] ?? "";
  return `  src/${file}.ts:${line}  ${what}: ${code.slice(from, to).split("\n")[0]}\n      ${source.trim()}`;
}

/** All mutants of a file, from its syntax tree. */
function mutantsOf(code: string): Mutant[] {
  const file = ts.createSourceFile("mutated.js", code, ts.ScriptTarget.ES2022, true, ts.ScriptKind.JS);
  const mutants: Mutant[] = [];
  const put = (node: ts.Node, text: string, what: string): void => {
    mutants.push({ from: node.getStart(), to: node.getEnd(), text, what });
  };
  const visit = (node: ts.Node): void => {
    mutate(node, put);
    ts.forEachChild(node, visit);
  };
  visit(file);
  return mutants;
}

type Put = (node: ts.Node, text: string, what: string) => void;

/** Operators, and what stands for each instead. */
const swapped: ReadonlyMap<ts.SyntaxKind, string> = new Map([
  [ts.SyntaxKind.AmpersandAmpersandToken, "||"],
  [ts.SyntaxKind.BarBarToken, "&&"],
  [ts.SyntaxKind.LessThanToken, "<="],
  [ts.SyntaxKind.LessThanEqualsToken, "<"],
  [ts.SyntaxKind.GreaterThanToken, ">="],
  [ts.SyntaxKind.GreaterThanEqualsToken, ">"],
  [ts.SyntaxKind.EqualsEqualsEqualsToken, "!=="],
  [ts.SyntaxKind.ExclamationEqualsEqualsToken, "==="],
  [ts.SyntaxKind.PlusToken, "-"],
  [ts.SyntaxKind.MinusToken, "+"],
  [ts.SyntaxKind.AsteriskToken, "/"],
  [ts.SyntaxKind.SlashToken, "*"],
  [ts.SyntaxKind.AmpersandToken, "|"],
  [ts.SyntaxKind.BarToken, "&"],
  [ts.SyntaxKind.LessThanLessThanToken, ">>"],
  [ts.SyntaxKind.PlusEqualsToken, "-="],
  [ts.SyntaxKind.MinusEqualsToken, "+="],
  [ts.SyntaxKind.QuestionQuestionEqualsToken, "="],
]);

function mutate(node: ts.Node, put: Put): void {
  if (ts.isIfStatement(node) || ts.isConditionalExpression(node)) {
    const condition = ts.isIfStatement(node) ? node.expression : node.condition;
    // A comparison by itself is turned round below.
    if (!ts.isBinaryExpression(condition) || !/^[!=]==$/.test(condition.operatorToken.getText()))
      put(condition, `!(${condition.getText()})`, "condition negated");
  } else if (ts.isWhileStatement(node)) {
    put(node.expression, "false", "loop never entered");
  } else if (ts.isForStatement(node) && node.condition !== undefined) {
    put(node.condition, "false", "loop never entered");
  } else if (ts.isBinaryExpression(node)) {
    mutateBinary(node, put);
  } else if (ts.isPrefixUnaryExpression(node) || ts.isPostfixUnaryExpression(node)) {
    mutateUnary(node, put);
  } else if (ts.isExpressionStatement(node)) {
    mutateStatement(node, put);
  } else if (ts.isReturnStatement(node)) {
    mutateReturn(node, put);
  } else if (ts.isContinueStatement(node)) {
    put(node, ";", "continue removed");
  } else if (ts.isBreakStatement(node) && !ts.isCaseOrDefaultClause(node.parent)) {
    put(node, ";", "break removed");
  } else if (node.kind === ts.SyntaxKind.TrueKeyword) {
    put(node, "false", "true → false");
  } else if (node.kind === ts.SyntaxKind.FalseKeyword) {
    put(node, "true", "false → true");
  } else if (ts.isQuestionDotToken(node)) {
    const { parent } = node;
    put(node, ts.isPropertyAccessExpression(parent) ? "." : "", "?. → .");
  }
}

function mutateBinary(node: ts.BinaryExpression, put: Put): void {
  const { left, operatorToken, right } = node;
  const other = swapped.get(operatorToken.kind);
  if (operatorToken.kind === ts.SyntaxKind.QuestionQuestionToken) {
    put(node, `(${left.getText()})`, "?? and what follows it removed");
    put(node, `(${right.getText()})`, "what stands before ?? removed");
  } else if (other !== undefined) {
    const text = `${left.getText()} ${other} ${right.getText()}`;
    put(
      node,
      other.endsWith("=") && /^[-+]?=$/.test(other) ? text : `(${text})`,
      `${operatorToken.getText()} → ${other}`,
    );
  }
}

function mutateUnary(node: ts.PrefixUnaryExpression | ts.PostfixUnaryExpression, put: Put): void {
  const operand = node.operand.getText();
  if (node.operator === ts.SyntaxKind.ExclamationToken) put(node, `(${operand})`, "! removed");
  if (node.operator !== ts.SyntaxKind.PlusPlusToken && node.operator !== ts.SyntaxKind.MinusMinusToken) return;
  const other = node.operator === ts.SyntaxKind.PlusPlusToken ? "--" : "++";
  put(node, ts.isPrefixUnaryExpression(node) ? other + operand : operand + other, `++ or -- → ${other}`);
}

/** `super()` stays, and so do assignments in constructors: without them nothing works. */
function mutateStatement(node: ts.ExpressionStatement, put: Put): void {
  const { expression } = node;
  if (ts.isCallExpression(expression) && expression.expression.kind === ts.SyntaxKind.SuperKeyword) return;
  if (ts.isConstructorDeclaration(node.parent.parent)) return;
  put(node, ";", "statement removed");
}

function mutateReturn(node: ts.ReturnStatement, put: Put): void {
  const { expression } = node;
  if (expression === undefined) put(node, ";", "return removed");
  else if (!/^(true|false|undefined)$/.test(expression.getText())) put(expression, "undefined", "returns undefined");
}

/** A mutant may never give the event loop a turn: a thread of its own ends this process when the one that asked has gone. */
function endWithAsker(): void {
  const watch =
    'const { ppid } = process; setInterval(() => ppid === process.ppid || process.kill(process.pid, "SIGKILL"), 1000)';
  new Worker(watch, { eval: true }).unref();
}

if (process.argv[2] === "--suites") {
  endWithAsker();
  await runSuites(process.argv[3] ?? "", process.argv.slice(4));
} else if (process.argv[2] === "--simulator") {
  endWithAsker();
  await runSimulator();
} else await main();
