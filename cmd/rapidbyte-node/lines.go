package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"rapidbyte.io/node/messages"
)

// progressEvery is how often a stream's figures are worth a line of a log.
const progressEvery = 5 * time.Second

// lines shows a run as one line per event: for logs, pipes and --output plain.
type lines struct {
	w       io.Writer
	look    look
	verbose int
	story   *story
	shown   map[messages.StreamID]time.Time // when a stream's figures were last shown
}

func newLines(w io.Writer, l look, verbose int) *lines {
	return &lines{w: w, look: l, verbose: verbose, story: newStory(), shown: map[messages.StreamID]time.Time{}}
}

func (v *lines) event(e messages.Event) {
	v.story.event(e)
	text := v.text(e)
	if text == "" {
		return
	}
	who := string(e.Stream)
	if who == "" {
		who = string(e.Pipeline)
	}
	_, _ = fmt.Fprintf(v.w, "%s %s: %s\n", v.look.dim(e.Time.Local().Format("15:04:05")), v.look.name(who), text) // nobody is left to be told
}

func (v *lines) close() {}

// text is the line for e, "" when it is worth none at this verbosity.
func (v *lines) text(e messages.Event) string {
	switch e.Kind {
	case messages.EventProgress:
		return v.progress(e)
	case messages.EventRunStarted:
		return "run " + e.Run + " started"
	case messages.EventStreamPlanned:
		return plannedText(e)
	case messages.EventStreamFinished:
		m := v.story.stream(e.Stream)
		s := fmt.Sprintf("%s finished: %s written", v.look.good(), count(m.written, "row"))
		if e.Rejected > 0 {
			s += ", " + number(e.Rejected) + " rejected"
		}
		return s + " in " + took(m.took(e.Time))
	case messages.EventNote:
		if v.verbose > 1 {
			return reasonText(e)
		}
		return ""
	case messages.EventTaskStarted, messages.EventTaskEnded, messages.EventCheckpoint, messages.EventRunEnded:
		if v.verbose > 0 {
			return detailText(e)
		}
		return ""
	case messages.EventStreamFailed, messages.EventTaskRetry, messages.EventRunRetry, messages.EventWarning, messages.EventDraining:
	}
	return noteText(e, v.look)
}

func (v *lines) progress(e messages.Event) string {
	if v.story.stream(e.Stream).state != meterRunning {
		return ""
	}
	if v.verbose == 0 && e.Time.Sub(v.shown[e.Stream]) < progressEvery {
		if _, seen := v.shown[e.Stream]; !seen {
			v.shown[e.Stream] = e.Time
		}
		return ""
	}
	if _, seen := v.shown[e.Stream]; !seen && v.verbose == 0 {
		v.shown[e.Stream] = e.Time // the first figures say nothing yet
		return ""
	}
	v.shown[e.Stream] = e.Time
	return strings.Join(figures(v.story.stream(e.Stream), e.Time), ", ")
}

// figures are the words for a stream that moves.
func figures(m *meter, now time.Time) []string {
	read := number(m.read)
	if m.total > 0 {
		read += " of " + number(m.total)
	}
	out := []string{read + " rows read", number(m.written) + " written"}
	if m.waiting != "" {
		return append(out, "waiting: "+escape(m.waiting))
	}
	rows, bytes := m.rate(now)
	out = append(out, short(rows)+" rows/s", fmt.Sprintf("%.1f MiB/s", bytes/(1<<20)))
	if d, ok := m.eta(now); ok {
		out = append(out, "ETA "+eta(d))
	}
	return out
}

func plannedText(e messages.Event) string {
	s := "planned: " + count(int64(e.Tasks), "task")
	if e.Total > 0 {
		s += ", about " + count(e.Total, "row")
	}
	return s
}

// detailText is what only -v shows.
func detailText(e messages.Event) string {
	switch e.Kind {
	case messages.EventTaskStarted:
		return fmt.Sprintf("task %s started, attempt %d of epoch %d", escape(string(e.Part)), e.Token.Attempt, e.Token.Epoch)
	case messages.EventTaskEnded:
		return "task " + escape(string(e.Part)) + " ended"
	case messages.EventCheckpoint:
		s := fmt.Sprintf("task %s committed %s", escape(string(e.Part)), count(e.RowsWritten, "row"))
		if e.Rejected > 0 {
			s += ", " + number(e.Rejected) + " rejected"
		}
		if e.Position != "" {
			s += " at " + escape(e.Position)
		}
		return s
	case messages.EventRunEnded:
		return "run " + string(e.State)
	case messages.EventRunStarted, messages.EventStreamPlanned, messages.EventProgress, messages.EventTaskRetry, messages.EventNote, messages.EventWarning,
		messages.EventStreamFinished, messages.EventStreamFailed, messages.EventDraining, messages.EventRunRetry:
	}
	return ""
}

// noteText is what a person wants to know at once, on every kind of output.
func noteText(e messages.Event, l look) string {
	cause := ""
	if e.Failure != nil {
		cause = escape(e.Failure.Error())
	}
	switch e.Kind {
	case messages.EventTaskRetry, messages.EventRunRetry:
		return fmt.Sprintf("%s trying again in %s: %s", l.warn(), took(e.Delay), cause)
	case messages.EventStreamFailed:
		return l.bad() + " failed: " + cause
	case messages.EventWarning:
		return l.warn() + " " + escape(e.Message)
	case messages.EventDraining:
		return fmt.Sprintf("%s %s: stopping at the next committed position; once more stops at once", l.warn(), escape(e.Message))
	case messages.EventRunStarted, messages.EventStreamPlanned, messages.EventTaskStarted, messages.EventProgress, messages.EventCheckpoint,
		messages.EventTaskEnded, messages.EventNote, messages.EventStreamFinished, messages.EventRunEnded:
	}
	return ""
}

// reasonText is what only -vv shows.
func reasonText(e messages.Event) string {
	if e.Kind != messages.EventNote {
		return ""
	}
	return escape(e.Message)
}
