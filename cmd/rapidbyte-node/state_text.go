package main

import (
	"fmt"
	"strings"
	"time"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
)

// stateShow is what state show has to say.
type stateShow struct{ node.StateReport }

func (r stateShow) line() string {
	if len(r.Loads) == 0 {
		return "nothing has been loaded yet"
	}
	return count(int64(len(r.Loads)), "stream")
}

func (r stateShow) text(l look) string {
	var b strings.Builder
	facts := []string{fmt.Sprintf("epoch %d", r.Store.Epoch)}
	if d := r.Destination; d != nil {
		facts = append(facts, fmt.Sprintf("%d at the destination", d.Epoch))
		if !d.Ours {
			facts = append(facts, l.yellow("which belongs to another state store, "+escape(d.Store)))
		}
	}
	fmt.Fprintf(&b, "%s  %s\n", l.bold(escape(string(r.Pipeline))), strings.Join(facts, ", "))
	if run := r.Store.Run; run != nil {
		fmt.Fprintf(&b, "  %s run %s goes on, begun %s%s\n", l.warn(), run.ID, run.Started.Format(time.RFC3339), runCause(run.Code, run.Why))
	}
	if len(r.Loads) == 0 {
		fmt.Fprintf(&b, "  %s %s\n", l.none(), r.line())
	}
	for _, load := range r.Loads {
		b.WriteString("\n" + loadText(load, l))
	}
	return b.String()
}

func loadText(r node.LoadReport, l look) string {
	how := "goes on"
	if r.Finished {
		how = "finished"
	}
	facts := []string{fmt.Sprintf("load %d", r.Number), how}
	if r.Mode != "" {
		facts = append(facts, string(r.Mode))
	}
	facts = append(facts, count(r.Rows.Read, "row")+" read", number(r.Rows.Applied)+" written")
	if r.Rows.Rejected > 0 {
		facts = append(facts, number(r.Rows.Rejected)+" rejected")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  %s  %s\n", l.bold(l.name(r.Name)), strings.Join(facts, ", "))
	if r.Order != nil {
		fmt.Fprintf(&b, "  %s the next run starts it over, ordered %s\n", l.warn(), r.Order.Given.Format(time.RFC3339))
	}
	rows := [][]string{{"task", "store", "destination", "", "rows", "attempt", "kept", "position"}}
	for i := range rows[0] {
		rows[0][i] = l.dim(rows[0][i])
	}
	for _, t := range r.Tasks {
		last := t.Receipt()
		position := typed(last.Position)
		if last.Final {
			position = "complete"
		}
		if t.Order != nil {
			position += "; the next run reads on from " + typed(t.Order.To)
		}
		rows = append(rows, []string{
			l.name(string(t.Task)), commitOf(t.Store, r.Number), commitOf(t.Destination, r.Number), lag(t, l), number(last.Rows.Read),
			fmt.Sprintf("%d.%d", last.Token.Epoch, last.Token.Attempt), number(int64(t.Kept)), escape(position),
		})
	}
	const store, rowsAt, keptAt = 1, 4, 6
	return b.String() + table("    ", rows, store, store+1, rowsAt, keptAt)
}

// commitOf is the number of a commit, with its load where that is not the one shown.
func commitOf(r *messages.Receipt, load uint64) string {
	switch {
	case r == nil:
		return "-"
	case r.Version.Load != load:
		return fmt.Sprintf("%d of load %d", r.Version.Commit, r.Version.Load)
	}
	return number(int64(r.Version.Commit)) //nolint:gosec // counts commits
}

// lag compares the commits of store and destination.
func lag(t node.TaskReport, l look) string {
	switch {
	case t.Behind == nil:
		return ""
	case *t.Behind == 0:
		return "same"
	case *t.Behind > 0:
		return number(*t.Behind) + " behind"
	}
	return l.red(number(-*t.Behind) + " ahead")
}

// typed shows a position with the types of its values.
func typed(p messages.Position) string {
	if p.At.IsZero() {
		return p.String()
	}
	text := typedCursor(p.At)
	if rest := (messages.Position{Streams: p.Streams}); len(p.Streams) > 0 {
		text += ", " + rest.String()
	}
	return text
}

func typedCursor(c messages.Cursor) string {
	if len(c.Parts) == 0 {
		return strings.TrimSpace(string(c.Type) + " " + c.Value)
	}
	parts := make([]string, len(c.Parts))
	for i, p := range c.Parts {
		parts[i] = typedCursor(p)
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// stateChange is the result of reset and rewind in the envelope.
type stateChange struct {
	Applied bool          `json:"applied"` // false: this is what would happen
	Changes []node.Change `json:"changes"`
}

func (r stateChange) outcome() outcome { return outcome{summary: r.line(), result: r, human: r.text} }

func (r stateChange) line() string {
	will := "would do it"
	if r.Applied {
		will = "does it"
	}
	how := "start over"
	if len(r.Changes) == 1 && len(r.Changes[0].Tasks) > 0 {
		how = "read about " + count(r.Changes[0].Rows, "row") + " again"
	}
	return fmt.Sprintf("%s: %s; the next run %s", streamsOf(r.Changes), how, will)
}

func (r stateChange) text(l look) string {
	var b strings.Builder
	for _, c := range r.Changes {
		switch {
		case c.Forgotten:
			fmt.Fprintf(&b, "%s  the document has no such stream: its state is dropped, its target stays\n", l.bold(l.name(c.Name)))
		case len(c.Tasks) == 0:
			fmt.Fprintf(&b, "%s  the next run starts over and reads all rows again; load %d has read %s\n", l.bold(l.name(c.Name)), c.Number, count(c.Rows, "row"))
		default:
			fmt.Fprintf(&b, "%s  the next run reads about %s of load %d again\n", l.bold(l.name(c.Name)), count(c.Rows, "row"), c.Number)
		}
		for _, t := range c.Tasks {
			fmt.Fprintf(&b, "  %s  from %s back to %s\n", l.name(string(t.Task)), escape(typed(t.From.Position)), escape(typed(t.To)))
		}
		if c.Doubled {
			fmt.Fprintf(&b, "  %s the write mode is append: rows that are in %s are there twice then, unless it is emptied\n", l.warn(), l.name(c.Target))
		}
	}
	if r.Applied {
		fmt.Fprintf(&b, "%s ordered; the next run does it\n", l.good())
	} else {
		fmt.Fprintf(&b, "%s nothing was changed yet\n", l.none())
	}
	return b.String()
}

// stateMoments is the result of rewind without --to in the envelope.
type stateMoments struct {
	Stream  string        `json:"stream"`
	Moments []node.Moment `json:"kept_checkpoints"`
}

func (r stateMoments) outcome() outcome { return outcome{summary: r.line(), result: r, human: r.text} }

func (r stateMoments) line() string {
	return count(int64(len(r.Moments)), "kept checkpoint") + " of " + escape(r.Stream)
}

func (r stateMoments) text(l look) string {
	rows := [][]string{}
	for _, m := range r.Moments {
		at := "the beginning"
		if len(m.Tasks) > 0 {
			at = typed(m.Tasks[0].Position)
		}
		epoch := fmt.Sprintf("epoch %d", m.Epoch)
		if m.Epoch == 0 {
			epoch = "begun"
		}
		if n := len(m.Tasks) - 1; n > 0 {
			at += fmt.Sprintf(", and %d more tasks", n)
		}
		rows = append(rows, []string{
			l.bold(number(int64(m.Number))), l.dim(m.Saved.Format(time.RFC3339)), epoch, count(m.Rows, "row") + " behind it", escape(at),
		})
	}
	return table("", rows, 0) + r.line() + "\n"
}

// stateRebuilt is what state rebuild has to say.
type stateRebuilt struct{ node.Rebuilt }

func (r stateRebuilt) line() string {
	s := fmt.Sprintf("rebuilt from %s of %s", count(int64(len(r.Receipts)), "receipt"), count(int64(len(r.Loads)), "load"))
	if len(r.Receipts)+len(r.Loads) == 0 {
		s = "the destination knows nothing of the pipeline: the next run begins anew"
	}
	return s
}

func (r stateRebuilt) text(l look) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s  %s\n", l.good(), l.bold(escape(string(r.Pipeline))), r.line())
	var rows [][]string
	for _, k := range r.Receipts {
		at := typed(k.Position)
		if k.Final {
			at = "complete"
		}
		rows = append(rows, []string{l.name(string(k.Part)), fmt.Sprintf("load %d, commit %d", k.Version.Load, k.Version.Commit), count(k.Rows.Read, "row"), escape(at)})
	}
	b.WriteString(table("  ", rows))
	for _, k := range r.Lowered {
		fmt.Fprintf(&b, "  %s %s goes back from %s\n", l.warn(), l.name(string(k.From.Part)), escape(k.From.Reached()))
	}
	if r.Dropped > 0 {
		fmt.Fprintf(&b, "  %s %s that the destination does not know\n", l.warn(), count(int64(r.Dropped), "receipt")+" dropped")
	}
	return b.String()
}

// runCause is why a run ended, as the end of a line.
func runCause(code messages.Code, why string) string {
	if code == "" {
		return ""
	}
	first, _, _ := strings.Cut(why, "\n")
	return ", " + string(code) + " " + escape(first)
}
