// The Go side of the DRPC interop tests and benches, on storj.io/drpc.
//
//	drpcpeer serve CERT KEY CA        serves plain, with header and with TLS; prints an address each
//	drpcpeer call ADDR                runs the checks below against a server; prints a line for each
//	drpcpeer bench ADDR CONNS         prints unary calls per second, for each line of its input: milliseconds
//	drpcpeer pool ROUNDS              prints what drpcpool needs for each operation, a line of JSON for each
package main

import (
	"fmt"
	"os"

	"storj.io/drpc"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 5 && os.Args[1] == "serve":
		err = serve(os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) == 3 && os.Args[1] == "call":
		err = call(os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "bench":
		err = bench(os.Args[2], os.Args[3])
	case len(os.Args) == 3 && os.Args[1] == "pool":
		err = pool(os.Args[2])
	default:
		err = fmt.Errorf("usage: drpcpeer serve CERT KEY CA | call ADDR | bench ADDR CONNS | pool ROUNDS")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// message and encoding carry plain bytes: what is tested is the transport.
type message struct{ data []byte }

type encoding struct{}

func (encoding) Marshal(msg drpc.Message) ([]byte, error) { return msg.(*message).data, nil }

func (encoding) Unmarshal(data []byte, msg drpc.Message) error {
	msg.(*message).data = append([]byte(nil), data...)
	return nil
}
