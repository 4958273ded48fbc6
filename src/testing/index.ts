export { FakeClock, settle } from "./clock.ts";
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
} from "./conn.ts";
