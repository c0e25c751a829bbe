package main

import (
	"fmt"
	"strings"
	"time"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// summary is what a run prints at its end.
type summary struct {
	result  runResult
	elapsed time.Duration
	story   *story
	policy  connectors.DataErrorPolicy
	path    string // of the document; empty: there is none
}

type totals struct {
	read, written, rejected, bytes int64
	failed, moved                  int // streams
}

func (s summary) totals() totals {
	var t totals
	for _, r := range s.result.Streams {
		t.read += r.RowsRead
		t.written += r.RowsWritten
		t.rejected += r.RowsRejected
		t.bytes += r.Bytes
		if r.State == messages.RunFailed {
			t.failed++
		}
		if !idle(r) {
			t.moved++
		}
	}
	return t
}

// idle reports whether a stream had nothing to do.
func idle(r messages.StreamResult) bool {
	return r.State == messages.RunCompleted && r.RowsRead == 0 && r.RowsWritten == 0 && (r.Tasks == 0 || r.Open)
}

// line is the summary in one sentence.
func (s summary) line() string {
	t := s.totals()
	moved := fmt.Sprintf("%s of %s in %s", count(t.written, "row"), count(int64(len(s.result.Streams)), "stream"), took(s.elapsed))
	switch s.result.State {
	case messages.RunCompleted:
		if t.moved == 0 {
			return "nothing new"
		}
		return "wrote " + moved + rejected(t)
	case messages.RunDrained:
		return "stopped; wrote " + moved + rejected(t)
	case messages.RunFailed, messages.RunRunning:
	}
	if t.written == 0 {
		return "failed; nothing was written"
	}
	return "failed; wrote " + moved + rejected(t)
}

func rejected(t totals) string {
	if t.rejected == 0 {
		return ""
	}
	return ", " + number(t.rejected) + " rejected"
}

// text is the summary for a person: one line per stream, the total, what to know.
// Names are cut shorter where the terminal is narrow.
func (s summary) text(l look) string {
	var text string
	for _, l.names = range []int{nameMax, 24, 12} {
		text = s.render(l)
		if l.columns == 0 || widest(text) <= l.columns {
			break
		}
	}
	return text
}

func widest(text string) (w int) {
	for line := range strings.Lines(text) {
		w = max(w, width(strings.TrimSuffix(line, "\n")))
	}
	return w
}

func (s summary) render(l look) string {
	r, t := s.result, s.totals()
	if len(r.Streams) == 0 && r.State != messages.RunCompleted {
		return "" // the error says it all
	}
	var b strings.Builder
	glyph, verb := l.good(), "completed in "+took(s.elapsed)
	switch r.State {
	case messages.RunCompleted:
		if t.moved == 0 {
			verb = "nothing new"
		}
	case messages.RunDrained:
		glyph, verb = l.warn(), "stopped after "+took(s.elapsed)
	case messages.RunFailed, messages.RunRunning:
		glyph, verb = l.bad(), "failed after "+took(s.elapsed)
	}
	fmt.Fprintf(&b, "%s %s  %s\n", glyph, l.bold(escape(string(r.Pipeline))), verb)
	rows := make([][]string, 0, len(r.Streams)+1)
	for _, st := range r.Streams {
		rows = append(rows, s.stream(st, l))
	}
	if len(r.Streams) > 1 && t.moved > 0 {
		rows = append(rows, []string{
			" ", l.bold("total"), number(t.read), l.arrow(), number(t.written), "rows", size(float64(t.bytes)), took(s.elapsed), s.rates(t),
		})
	}
	b.WriteString(table("  ", rows, 2, 4, 6, 7))
	for _, d := range r.Tuning {
		fmt.Fprintf(&b, "  %s\n", l.dim("tuned "+d.What+": "+d.Value+" ("+escape(d.Reason)+")"))
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "  %s %s\n", l.warn(), escape(w))
	}
	if t.rejected > 0 && s.policy == connectors.DataDLQ && s.path != "" {
		fmt.Fprintf(&b, "  %s rapidbyte-node dlq list %s\n", l.dim("rejected rows "+l.arrow()), argument(s.path))
	}
	fmt.Fprintf(&b, "  %s\n", l.dim("run "+r.RunID+", state in "+escape(r.Store)))
	return b.String()
}

// argument is s as a shell takes it for one word.
func argument(s string) string { return messages.Word(escape(s)) }

// stream is the line of one stream.
func (s summary) stream(r messages.StreamResult, l look) []string {
	if idle(r) {
		return []string{l.none(), l.name(string(r.Stream)), "nothing new"}
	}
	m := s.story.streams[r.Stream]
	started := m != nil && !m.started.IsZero()
	if r.State == messages.RunDrained && !started && r.RowsWritten == 0 {
		return []string{l.none(), l.name(string(r.Stream)), "not started"}
	}
	glyph := l.good()
	switch {
	case r.State == messages.RunFailed:
		glyph = l.bad()
	case r.State == messages.RunDrained || r.RowsRejected > 0 || r.Retries > 0:
		glyph = l.warn()
	}
	var lasted string
	if started {
		end := s.story.started.Add(s.elapsed)
		lasted = took(max(0, m.took(end)))
	}
	return []string{
		glyph, l.name(string(r.Stream)), number(r.RowsRead), l.arrow(), number(r.RowsWritten), "rows", size(float64(r.Bytes)), lasted,
		notes(r, l),
	}
}

// notes are the target and what was unusual.
func notes(r messages.StreamResult, l look) string {
	var out []string
	if r.Target != "" && r.Target != string(r.Stream) {
		out = append(out, "in "+l.name(r.Target))
	}
	if r.RowsRejected > 0 {
		out = append(out, number(r.RowsRejected)+" rejected")
	}
	switch {
	case r.Retries == 1:
		out = append(out, "1 retry")
	case r.Retries > 1:
		out = append(out, number(int64(r.Retries))+" retries")
	}
	if r.Failure != nil {
		out = append(out, string(r.Failure.Code))
	}
	if r.State == messages.RunDrained {
		at := "resumes here"
		if r.Cursor != nil && r.Cursor.String() != "" {
			at = "resumes at " + l.name(r.Cursor.String())
		}
		out = append(out, at)
	}
	if r.Open && r.Cursor != nil && r.Cursor.String() != "" {
		out = append(out, "up to "+l.name(r.Cursor.String()))
	}
	return strings.Join(out, ", ")
}

// rates are those of the whole run; a run of a moment has none.
func (s summary) rates(t totals) string {
	if s.elapsed < 100*time.Millisecond {
		return ""
	}
	seconds := s.elapsed.Seconds()
	return fmt.Sprintf("%s rows/s, %.1f MiB/s", short(float64(t.written)/seconds), float64(t.bytes)/(1<<20)/seconds)
}
