package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
)

const checkLong = `check looks at everything that a run needs: the document, connectivity, permissions,
the state store, and whether each stream fits its target. It changes nothing.

The exit code is 0 when the run would begin, warnings or not.`

func (a *app) checkCommand() *cobra.Command {
	var streams []string
	cmd := &cobra.Command{
		Use: "check DOCUMENT", Short: "Look whether a run would work; change nothing", Long: checkLong, Annotations: withExitCodes,
		Example: "  rapidbyte-node check pipeline.yaml",
		Args:    oneDocument, ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.check(cmd.Context(), args[0], streams)
			a.out = &out
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&streams, "stream", nil, "only this `stream`; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("stream", a.completeStreams)
	return cmd
}

// checkResult is the result of check in the envelope.
type checkResult struct {
	Pipeline messages.PipelineID  `json:"pipeline"`
	Findings []connectors.Finding `json:"findings"`
	Streams  []node.StreamReport  `json:"streams"`
}

func (a *app) check(ctx context.Context, path string, streams []string) outcome {
	stop := a.watch(ctx)
	defer stop.close()
	doc, err := a.load(path)
	if err != nil {
		return failed(err)
	}
	return stop.within(func(ctx context.Context) outcome {
		spec, err := node.Build(ctx, doc, node.BuildOptions{Streams: streams})
		if err != nil {
			return stop.failed(err)
		}
		return stop.checked(checkResult{Pipeline: spec.Pipeline}, node.Check(ctx, spec, doc))
	})
}

// within runs do, and leaves it behind when it does not end after a signal.
func (s *stopper) within(do func(ctx context.Context) outcome) outcome {
	done := make(chan outcome, 1) // read or not, the goroutine ends
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- panicked(r)
			}
		}()
		done <- do(s.ctx)
	}()
	select {
	case o := <-done:
		return o
	case <-s.gaveUp:
		return failed(context.Canceled)
	}
}

func (s *stopper) checked(r checkResult, report node.Report) outcome {
	r.Findings, r.Streams = report.Findings, report.Streams
	if r.Findings == nil {
		r.Findings = []connectors.Finding{}
	}
	if r.Streams == nil {
		r.Streams = []node.StreamReport{}
	}
	out := outcome{result: r, human: r.text, told: true, summary: r.line()}
	if s.ctx.Err() != nil { // what was found is what the signal interrupted
		return failed(context.Canceled)
	}
	for _, f := range r.Findings {
		if f.Severity == connectors.SeverityError {
			out.failures = append(out.failures, findingFailure(f))
		}
	}
	return out
}

func findingFailure(f connectors.Finding) messages.Failure {
	code := f.Code
	if code == "" {
		code = messages.CodeInternal // a finding of a connector that did not name it
	}
	return messages.Failure{Code: code, Kind: string(connectors.KindConfig), What: f.Message, Where: f.Where, Next: remedy(f)}
}

func (r checkResult) count(s connectors.Severity) (n int64) {
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// line is the report in one sentence.
func (r checkResult) line() string {
	errs, warnings := r.count(connectors.SeverityError), r.count(connectors.SeverityWarning)
	s := "ready to run"
	if errs > 0 {
		s = "a run would fail: " + count(errs, "error")
	}
	if warnings > 0 {
		s += ", " + count(warnings, "warning")
	}
	return s
}

// text is the report for a person.
func (r checkResult) text(l look) string {
	var b strings.Builder
	glyph := l.good()
	switch {
	case r.count(connectors.SeverityError) > 0:
		glyph = l.bad()
	case r.count(connectors.SeverityWarning) > 0:
		glyph = l.warn()
	}
	fmt.Fprintf(&b, "%s %s  %s\n", glyph, l.bold(escape(string(r.Pipeline))), r.line())
	for _, f := range r.Findings {
		b.WriteString("\n" + findingText(f, l))
	}
	for _, s := range r.Streams {
		b.WriteString("\n" + streamReport(s, l))
	}
	return b.String()
}

// remedy is the finding's own, or the catalogue's advice.
func remedy(f connectors.Finding) string {
	info, _ := f.Code.Info()
	return cmp.Or(f.Remedy, info.Next)
}

func findingText(f connectors.Finding, l look) string {
	glyph := l.none()
	switch f.Severity {
	case connectors.SeverityError:
		glyph = l.bad()
	case connectors.SeverityWarning:
		glyph = l.warn()
	case connectors.SeverityNote:
	}
	head := glyph
	if f.Code != "" {
		head += " " + string(f.Code)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  %s %s\n", head, strings.ReplaceAll(escapeLines(f.Message), "\n", "\n    "))
	if at := f.Where.String(); at != "" {
		fmt.Fprintf(&b, "    %s %s\n", l.dim("where"), escape(at))
	}
	if next := remedy(f); next != "" {
		fmt.Fprintf(&b, "    %s %s\n", l.dim("next "+l.arrow()), escape(next))
	}
	return b.String()
}

func streamReport(s node.StreamReport, l look) string {
	facts := []string{string(s.Mode), count(int64(s.Tasks), "task")}
	if s.Estimate > 0 {
		facts = append(facts, "about "+count(s.Estimate, "row"))
	}
	head := fmt.Sprintf("  %s %s %s  %s\n", l.bold(l.name(string(s.Stream))), l.arrow(), l.name(s.Target), l.dim(strings.Join(facts, ", ")))
	if s.How != "" {
		head += "    " + l.dim(escape(s.How)) + "\n"
	}
	return head + table("    ", columnRows(s.Columns, s.Key, nil, l))
}
