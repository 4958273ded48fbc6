export {
  type Deferred,
  deferred,
  echo,
  type Script,
  ScriptedCall,
  ScriptedConn,
  type ScriptedDial,
  ScriptedStream,
  scriptedDial,
} from "../../src/testing/conn.ts";
