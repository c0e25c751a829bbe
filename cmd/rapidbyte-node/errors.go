package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
)

// exitCode is one row of the table of exit codes.
type exitCode struct {
	code  int
	codes string // the error codes of the class
	means string
}

// exitCodes is every exit code there is, in order.
var exitCodes = []exitCode{
	{messages.ExitOK, "", "done; warnings do not change it"},
	{messages.ExitConfig, "RB-2xxx", "the pipeline document must be changed"},
	{messages.ExitSchema, "RB-3xxx", "the shape of a stream does not fit"},
	{messages.ExitSource, "RB-4xxx", "the source failed"},
	{messages.ExitDestination, "RB-5xxx", "the destination failed"},
	{messages.ExitState, "RB-6xxx", "the state store failed"},
	{messages.ExitCancelled, "RB-7xxx", "stopped before the end; running again resumes"},
	{messages.ExitFenced, "RB-8xxx", "another owner has taken over"},
	{messages.ExitPlugin, "RB-9xxx", "a plugin failed"},
	{messages.ExitData, "RB-1xxx", "a row or a file is bad"},
	{messages.ExitUsage, "RB-01xx", "wrong usage of the command line"},
	{messages.ExitInternal, "RB-00xx", "a bug; please report it"},
}

func exitTable() string {
	var b strings.Builder
	b.WriteString("Exit codes:")
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "\n  %2d  %-8s %s", e.code, e.codes, e.means)
	}
	return b.String()
}

// failuresOf flattens err: every problem of a document, or the one failure.
// problems is true for the former.
func failuresOf(err error) (list []messages.Failure, problems bool) {
	if p, ok := errors.AsType[config.Problems](err); ok && len(p) > 0 {
		return p, true
	}
	if errors.Is(err, context.Canceled) {
		info, _ := messages.CodeCancelled.Info()
		return []messages.Failure{{Code: info.Code, What: "stopped before anything moved", Next: info.Next}}, false
	}
	return []messages.Failure{connectors.FailureOf(err, messages.Place{})}, false
}

// about puts the path of the document into the commands that failures advise; empty
// stands for a document that was made up from the command line.
func (o outcome) about(path string) outcome {
	list := make([]messages.Failure, len(o.failures))
	for i, f := range o.failures {
		f = advised(f)
		if path == "" {
			f.Next = madeUpRun.ReplaceAllString(f.Next, "the same command and `--full-refresh`")
			f.Next = strings.ReplaceAll(f.Next, messages.Command("state", "rebuild", messages.Document), "the same command and `--rebuild-state`")
		} else {
			f.Next = documentCommand.ReplaceAllStringFunc(f.Next, func(command string) string {
				return strings.Replace(command, " "+messages.Document, " "+argument(path), 1)
			})
		}
		list[i] = f
	}
	if len(list) > 0 {
		o.failures = list
	}
	return o
}

// quotedWords are the rest of a command up to its backquote, as messages.Word writes them.
const quotedWords = "(?:[^'`\\\\]|\\\\'|'[^']*')*"

// A command is matched as a whole: what stands in its quotes, such as the name of a
// stream, is no place for the path.
var (
	documentCommand = regexp.MustCompile("`rapidbyte-node(?: [a-z]+)+ " + messages.Document + "(?:`| " + quotedWords + "`)")
	madeUpRun       = regexp.MustCompile("`rapidbyte-node run " + messages.Document + " --full-refresh" + quotedWords + "`")
)

// problemLine is one problem of a document as compilers print it.
func problemLine(f messages.Failure) string {
	at := f.Where.File
	if f.Where.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d", at, f.Where.Line, f.Where.Column)
	}
	s := at + ": " + string(f.Code) + " "
	if f.Where.Field != "" {
		s += f.Where.Field + ": "
	}
	s += f.What
	if f.Where.Line == 0 { // the document itself cannot be read: no place explains it
		f = advised(f)
	}
	if f.Next != "" {
		s += "; " + f.Next
	}
	return escape(s)
}

// failureText renders one failure:
//
//	✗ RB-4002 The source is not there
//	  what    open the file
//	  where   stream orders, file data/orders.csv
//	  why     no such file or directory
//	  next →  Check the path or name; ...
func failureText(f messages.Failure, l look) string {
	f = advised(f)
	title := "Error"
	if info, ok := f.Code.Info(); ok {
		title = info.Title
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\n", l.bad(), l.red(string(f.Code)), l.bold(title))
	line := func(name, text string) {
		if text = strings.TrimSpace(text); text == "" {
			return
		}
		const indent = "          "
		text = strings.ReplaceAll(escapeLines(text), "\n", "\n"+indent)
		fmt.Fprintf(&b, "  %s%s\n", l.dim(pad(name, len(indent)-2)), text)
	}
	line("what", f.What)
	line("where", f.Where.String())
	line("why", f.Why)
	line("next "+l.arrow(), f.Next)
	return b.String()
}

// failuresText renders all failures of an outcome.
func failuresText(list []messages.Failure, problems bool, l look) string {
	var b strings.Builder
	for i, f := range list {
		switch {
		case problems:
			b.WriteString(problemLine(f) + "\n")
		default:
			if i > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(failureText(f, l))
		}
	}
	if problems {
		fmt.Fprintf(&b, "%s %s\n", l.bad(), l.bold(count(int64(len(list)), "problem")+"; nothing was read or written"))
	}
	return b.String()
}
