package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/node"
)

func main() {
	os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.LookupEnv))
}

// Main runs one command line and returns the exit code. env looks variables up, for
// the document as for the program itself.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer, env func(string) (string, bool)) int {
	// A reader of our output that goes away must not end a run with a signal: the
	// write fails instead, and the run goes on.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, env: env, args: args, notify: notifySignals, boxes: node.DeadLetters}
	return a.main()
}

// app is one invocation.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) (string, bool)
	args           []string
	notify         func() (ch <-chan os.Signal, stop func())
	boxes          func(*config.Document) (connectors.DeadLetterBox, error)
	flags          globalFlags
	toStderr       bool     // results go to stderr: the events have stdout
	out            *outcome // what the command has to say; nil: it has said it
}

// main executes the command that args name and renders what became of it.
func (a *app) main() (code int) {
	a.flags.output = outputAuto
	root := a.root()
	root.SetArgs(append([]string{}, a.args...)) // never nil: cobra would take os.Args
	command := root.Name()
	defer func() {
		if r := recover(); r != nil {
			code = a.finish(command, panicked(r))
		}
	}()
	cmd, err := root.ExecuteContextC(context.Background())
	command = commandName(cmd)
	if err != nil {
		a.flags.output = asked(a.args, a.flags.output)
		return a.finish(command, failed(usageOf(cmd, err)))
	}
	if a.out == nil {
		return messages.ExitOK
	}
	return a.finish(command, *a.out)
}

// panicked is the outcome of a bug in this package. The stack is for the report that
// the user is asked to make.
func panicked(r any) outcome {
	f := connectors.FailureOf(fmt.Errorf("%v\n%s", r, debug.Stack()), messages.Place{})
	f.Code = messages.CodePanic
	f.What = "the command line panicked"
	return outcome{failures: []messages.Failure{f}}
}
