/** The comment at the end of an example: what it prints. */
export function printed(program: string): string {
  const [comment = ""] = /(?:^\/\/.*\n)+$/m.exec(program.slice(program.lastIndexOf("\n\n") + 2)) ?? [];
  return comment.replaceAll(/^\/\/ ?/gm, "");
}
