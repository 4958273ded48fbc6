// What protoc-gen-es makes of chat.proto, for the examples.
import type { Message } from "@bufbuild/protobuf";
import type { GenFile, GenMessage, GenService } from "@bufbuild/protobuf/codegenv2";
import { fileDesc, messageDesc, serviceDesc } from "@bufbuild/protobuf/codegenv2";

const file: GenFile = fileDesc(
  "CgpjaGF0LnByb3RvEgRkZW1vIhQKBExpbmUSDAoEdGV4dBgBIAEoCTKSAQoEQ2hhdBIdCgNTYXkSCi5kZW1vLkxpbmUaCi5kZW1vLkxpbmUSIwoHQ29s" +
    "bGVjdBIKLmRlbW8uTGluZRoKLmRlbW8uTGluZSgBEiIKBlJlcGVhdBIKLmRlbW8uTGluZRoKLmRlbW8uTGluZTABEiIKBFRhbGsSCi5kZW1vLkxpbmUa" +
    "Ci5kZW1vLkxpbmUoATABYgZwcm90bzM",
);

export type Line = Message<"demo.Line"> & { text: string };
export const LineSchema: GenMessage<Line> = messageDesc(file, 0);

export const Chat: GenService<{
  say: { methodKind: "unary"; input: typeof LineSchema; output: typeof LineSchema };
  collect: { methodKind: "client_streaming"; input: typeof LineSchema; output: typeof LineSchema };
  repeat: { methodKind: "server_streaming"; input: typeof LineSchema; output: typeof LineSchema };
  talk: { methodKind: "bidi_streaming"; input: typeof LineSchema; output: typeof LineSchema };
}> = serviceDesc(file, 0);
