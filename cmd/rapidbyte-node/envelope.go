package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"rapidbyte.io/node/messages"
)

// outcome is what a command has to say.
type outcome struct {
	summary  string            // one line
	result   any               // of the envelope; nil: none
	human    func(look) string // the result for a person; nil: none
	failures []messages.Failure
	problems bool // failures are all that is wrong with one document
	told     bool // human has told the failures already
}

func failed(err error) outcome {
	list, problems := failuresOf(err)
	return outcome{failures: list, problems: problems}
}

// exit returns the exit code: the class of the first cause.
func (o outcome) exit() int {
	if len(o.failures) == 0 {
		return messages.ExitOK
	}
	return o.failures[0].Code.Exit()
}

// envelope is the JSON form of every command's outcome. A key is never renamed.
type envelope struct {
	Command string     `json:"command"`
	OK      bool       `json:"ok"`
	Summary string     `json:"summary"`
	Result  any        `json:"result"` // null when the command did not get that far
	Error   *errorBody `json:"error"`  // null when ok
}

// errorBody is the first cause; Problems lists all when there are several.
type errorBody struct {
	messages.Failure
	ExitCode int                `json:"exit_code"`
	Problems []messages.Failure `json:"problems,omitempty"`
}

func (o outcome) envelope(command string) envelope {
	e := envelope{Command: command, OK: len(o.failures) == 0, Summary: o.summary, Result: o.result}
	if e.OK {
		return e
	}
	list := make([]messages.Failure, len(o.failures))
	for i, f := range o.failures {
		list[i] = advised(f)
	}
	e.Error = &errorBody{Failure: list[0], ExitCode: o.exit()}
	if o.problems || len(list) > 1 {
		e.Error.Problems = list
	}
	if o.problems && len(list) > 1 {
		e.Error.What = fmt.Sprintf("the document has %d problems; the first: %s", len(list), list[0].What)
	}
	e.Summary = cmp.Or(e.Summary, e.Error.What)
	return e
}

// advised gives a failure without a next step that of the catalogue.
func advised(f messages.Failure) messages.Failure {
	info, _ := f.Code.Info()
	f.Next = cmp.Or(f.Next, info.Next)
	return f
}

// encode returns e as indented JSON with a line break at its end.
func (e envelope) encode() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(e); err != nil {
		panic(fmt.Sprintf("envelope: %v", err)) // plain data always encodes
	}
	return b.Bytes()
}

// finish renders o and returns the exit code.
func (a *app) finish(command string, o outcome) int {
	code := o.exit()
	body := o.envelope(command).encode()
	out := a.stdout
	if a.toStderr {
		out = a.stderr
	}
	var err error
	switch {
	case a.flags.output == outputJSON:
		_, err = out.Write(body)
	case o.human != nil:
		_, err = io.WriteString(out, o.human(a.look(out)))
	}
	if err != nil && code == messages.ExitOK { // the reader of the result never saw it
		o.failures = append(o.failures, outputFailure("write the result", "", err))
		code = o.exit()
	}
	if len(o.failures) > 0 && (!o.told || a.flags.output == outputJSON || err != nil) {
		_, _ = io.WriteString(a.stderr, failuresText(o.failures, o.problems, a.look(a.stderr))) // nobody is left to be told
	}
	if a.flags.report == "" {
		return code
	}
	if err := writeAtomically(a.flags.report, body); err != nil {
		f := outputFailure("write the report", a.flags.report, err)
		_, _ = io.WriteString(a.stderr, failureText(f, a.look(a.stderr))) // nobody is left to be told
		if code == messages.ExitOK {
			code = f.Code.Exit()
		}
	}
	return code
}

func outputFailure(op, path string, err error) messages.Failure {
	info, _ := messages.CodeOutput.Info()
	return messages.Failure{
		Code: messages.CodeOutput, Kind: "config", What: op, Where: messages.Place{File: path}, Why: err.Error(), Next: info.Next,
	}
}

// writeAtomically puts b into path: a reader sees the old file or the whole new one. A
// device or a pipe is written to as it is; a rename would replace it.
func writeAtomically(path string, b []byte) error {
	if special(path) {
		return os.WriteFile(path, b, 0o644)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when it was renamed
	_, err = f.Write(b)
	for _, step := range []func() error{func() error { return f.Chmod(0o644) }, f.Sync} {
		if err == nil {
			err = step()
		}
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// special reports whether path is there and neither a file nor a folder.
func special(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.Mode().IsRegular() && !info.IsDir()
}

// probeReport looks whether the report can be written at all, before anything moves.
func (a *app) probeReport() error {
	if a.flags.report == "" || special(a.flags.report) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(a.flags.report), "."+filepath.Base(a.flags.report)+"-*")
	if err == nil {
		_ = f.Close()
		err = os.Remove(f.Name())
	}
	if info, statErr := os.Stat(a.flags.report); err == nil && statErr == nil && info.IsDir() {
		err = fmt.Errorf("it is a folder")
	}
	if err != nil {
		return outputFailure("write the report", a.flags.report, err)
	}
	return nil
}
