// Command postgres moves two databases from one PostgreSQL server to another, in every
// write mode, and compares what landed with the source, table by table:
//
//	go run ./examples/postgres              # both
//	go run ./examples/postgres chinook      # one
//
// It starts two servers of its own and throws them away; PostgreSQL must be installed.
// The documents that it runs, the dumps and the changes that it makes to the source
// between two runs are those of examples/pagila and examples/chinook.
package main

import (
	"fmt"
	"os"
	"slices"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(names []string) (code int) {
	if len(names) == 0 {
		names = examples
	}
	for _, n := range names {
		if !slices.Contains(examples, n) {
			fmt.Fprintf(os.Stderr, "no example %s; there are: %v\n", n, examples)
			return 64
		}
	}
	c := &console{}
	defer func() { code = c.end(recover()) }()
	s := newServers(c)
	for _, n := range names {
		newExample(c, os.Stdout, s, n).run()
	}
	return 0
}

// console is what pgtest needs of a test, for a program.
type console struct {
	failed   bool
	cleanups []func()
}

// stopped is the panic of FailNow.
type stopped struct{}

func (c *console) Helper() {}

func (c *console) Errorf(format string, args ...any) {
	c.failed = true
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (c *console) FailNow() {
	c.failed = true
	panic(stopped{})
}

func (c *console) Cleanup(f func()) { c.cleanups = append(c.cleanups, f) }

// TempDir is removed by end.
func (c *console) TempDir() string {
	dir, err := os.MkdirTemp("", "rapidbyte-example-")
	if err != nil {
		c.Errorf("%v", err)
		c.FailNow()
	}
	c.Cleanup(func() { _ = os.RemoveAll(dir) }) // a leftover of the folder of temporary files
	return dir
}

// end cleans up and returns the exit code; cause is what ended the program.
func (c *console) end(cause any) int {
	for _, f := range slices.Backward(c.cleanups) {
		f()
	}
	if _, ok := cause.(stopped); cause != nil && !ok {
		panic(cause)
	}
	if c.failed {
		return 1
	}
	return 0
}
