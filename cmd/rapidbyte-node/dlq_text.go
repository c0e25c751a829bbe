package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
)

// deadList is the result of dlq list in the envelope.
type deadList struct {
	Pipeline messages.PipelineID     `json:"pipeline"`
	Letters  []connectors.DeadLetter `json:"dead_letters"`
	More     bool                    `json:"more,omitempty"` // the limit was reached
}

func (r deadList) line() string {
	s := count(int64(len(r.Letters)), "dead letter")
	if len(r.Letters) == 0 {
		s = "no dead letters"
	}
	if r.More {
		s += ", and perhaps more: --limit 0 lists all"
	}
	return s
}

// text is the list for a person.
func (r deadList) text(l look) string {
	rows := make([][]string, 0, len(r.Letters))
	for _, d := range r.Letters {
		message, _, _ := strings.Cut(d.Message, "\n")
		rows = append(rows, []string{
			l.bold(escape(d.ID)), l.name(string(d.Stream)), l.name(d.Reason), escape(d.SQLState), l.dim(escape(d.Created)), l.cut(escape(message), 2*nameMax),
		})
	}
	return table("", rows) + r.line() + "\n"
}

// deadRow is a dead letter with its row.
type deadRow struct {
	connectors.DeadLetter
	Row   json.RawMessage `json:"row"`                 // null: it cannot be decoded
	Why   string          `json:"row_error,omitempty"` // why not
	Arrow []byte          `json:"row_arrow,omitempty"` // its bytes then, an Arrow IPC stream in base64
}

func rowOf(d connectors.DeadLetter) deadRow {
	row, err := node.RowJSON(d)
	if err != nil {
		return deadRow{DeadLetter: d, Why: err.Error(), Arrow: d.Row}
	}
	return deadRow{DeadLetter: d, Row: row}
}

// deadShow is the result of dlq show in the envelope.
type deadShow struct {
	Pipeline messages.PipelineID `json:"pipeline"`
	Letters  []deadRow           `json:"dead_letters"`
}

// text is all of them for a person.
func (r deadShow) text(l look) string {
	var b strings.Builder
	for i, d := range r.Letters {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(l.bold(escape(d.ID)) + "\n")
		line := func(name, text string) {
			if text == "" {
				return
			}
			const indent = "              "
			text = strings.ReplaceAll(escapeLines(text), "\n", "\n"+indent)
			fmt.Fprintf(&b, "  %s%s\n", l.dim(pad(name, len(indent)-2)), text)
		}
		line("stream", string(d.Stream))
		line("reason", d.Reason)
		line("sqlstate", d.SQLState)
		line("message", d.Message)
		line("set aside", d.Created)
		line("read as", fmt.Sprintf("row %d behind the position of task %s, load %d", d.Ordinal, d.Part, d.Load))
		line("position", d.Position)
		row := "cannot be decoded: " + d.Why
		if d.Why == "" {
			var out bytes.Buffer
			if err := json.Indent(&out, d.Row, "", "  "); err != nil {
				panic(fmt.Sprintf("dlq: %v", err)) // made by RowJSON
			}
			row = out.String()
		}
		line("row", row)
	}
	return b.String()
}

// deadReplay is the result of dlq replay in the envelope.
type deadReplay struct {
	Pipeline messages.PipelineID `json:"pipeline"`
	connectors.Replayed
}

func (r deadReplay) line() string {
	if r.Written+r.Left == 0 {
		return "no dead letters"
	}
	s := count(r.Written, "dead letter") + " written"
	if r.Left > 0 {
		s += ", " + number(r.Left) + " left"
	}
	return s
}

func (r deadReplay) text(l look) string {
	glyph := l.good()
	if r.Left > 0 {
		glyph = l.warn()
	}
	return fmt.Sprintf("%s %s  %s\n", glyph, l.bold(escape(string(r.Pipeline))), r.line())
}

// deadPurge is the result of dlq purge in the envelope.
type deadPurge struct {
	Pipeline messages.PipelineID `json:"pipeline"`
	Removed  int64               `json:"removed"`
}

func (r deadPurge) line() string { return count(r.Removed, "dead letter") + " removed" }

func (r deadPurge) text(l look) string {
	return fmt.Sprintf("%s %s  %s\n", l.good(), l.bold(escape(string(r.Pipeline))), r.line())
}

const exportLong = `export writes dead letters as JSON Lines: reason, place and the row itself. They stay
dead letters.`

func (a *app) dlqExportCommand() *cobra.Command {
	var f deadFlags
	var file string
	cmd := &cobra.Command{
		Use: "export DOCUMENT [ID]...", Short: "Write them as JSON Lines", Long: exportLong, Annotations: withExitCodes,
		Example: "  rapidbyte-node dlq export pipeline.yaml --file dead.jsonl",
		Args:    documentAndIDs(0), ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.dead(cmd.Context(), args, f, func(ctx context.Context, d deadLetters) (outcome, error) {
				return export(ctx, d, file)
			})
			a.out = &out
			return nil
		},
	}
	f.add(cmd, a, 0)
	cmd.Flags().StringVar(&file, "file", "", "write to this `file` instead of stdout")
	return cmd
}

// export writes what d selects to a file, or as the result.
func export(ctx context.Context, d deadLetters, file string) (outcome, error) {
	found, err := d.find(ctx)
	if err != nil {
		return outcome{}, err
	}
	r := deadExport{Pipeline: d.doc.Pipeline, Exported: len(found), File: file}
	out := outcome{summary: r.line()}
	if file == "" {
		r.Letters = []deadRow{}
		for _, l := range found {
			r.Letters = append(r.Letters, rowOf(l))
		}
		out.result, out.human = r, func(look) string { return r.lines() }
		return out, nil
	}
	lines := deadExport{}
	for _, l := range found {
		lines.Letters = append(lines.Letters, rowOf(l))
	}
	if err := writeAtomically(file, []byte(lines.lines())); err != nil {
		return outcome{}, outputFailure("write the dead letters", file, err)
	}
	out.result, out.human = r, func(l look) string {
		return fmt.Sprintf("%s %s  %s\n", l.good(), l.bold(escape(string(r.Pipeline))), r.line())
	}
	return out, nil
}

// deadExport is the result of dlq export in the envelope.
type deadExport struct {
	Pipeline messages.PipelineID `json:"pipeline"`
	Exported int                 `json:"exported"`
	File     string              `json:"file,omitempty"`
	Letters  []deadRow           `json:"dead_letters,omitempty"`
}

func (r deadExport) line() string {
	s := count(int64(r.Exported), "dead letter")
	if r.File != "" {
		s += " in " + escape(r.File)
	}
	return s
}

// lines are the dead letters as JSON Lines.
func (r deadExport) lines() string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, d := range r.Letters {
		if err := enc.Encode(d); err != nil {
			panic(fmt.Sprintf("dlq: %v", err)) // plain data always encodes
		}
	}
	return b.String()
}

// confirm asks before what cannot be taken back. Nobody is asked who cannot answer.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	f, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) { //nolint:gosec // a descriptor is small
		return messages.Failure{
			Code: messages.CodeUsage, Kind: string(connectors.KindConfig), What: "this cannot be taken back, and nobody is there to be asked",
			Next: "Add `--yes`.",
		}
	}
	return ask(a.stdin, a.stderr, question)
}

// ask returns nil for yes.
func ask(in io.Reader, out io.Writer, question string) error {
	_, _ = fmt.Fprintf(out, "%s [y/N] ", question) // an answer that nobody was asked for is no
	answer, _ := bufio.NewReader(in).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	info, _ := messages.CodeCancelled.Info()
	return messages.Failure{Code: info.Code, What: "nothing was changed", Next: "Answer `y`, or add `--yes`."}
}
