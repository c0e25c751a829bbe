package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"rapidbyte.io/node/messages"
)

const (
	barsMax     = 16 // streams shown at once; the last line counts the others
	barWidthMax = 24 // cells
	showAfter   = 300 * time.Millisecond
)

// view shows a run while it goes.
type view interface {
	io.Writer // log lines
	event(e messages.Event)
	close()
}

// Write implements view.
func (v *lines) Write(b []byte) (int, error) { return v.w.Write(b) }

// bars shows a run on a terminal: a line for each stream that moves, one for the
// whole. It leaves nothing behind but what is worth remembering; the summary follows.
type bars struct {
	look    look
	verbose int
	w       io.Writer
	p       *mpb.Progress
	limit   int           // streams shown at once
	delay   chan struct{} // closed when drawing begins: a short run draws nothing
	timer   *time.Timer
	total   *mpb.Bar

	mu    sync.Mutex // of what follows: the library draws from a goroutine of its own
	begun bool
	story *story
	shown map[messages.StreamID]*mpb.Bar
}

func newBars(w io.Writer, l look, verbose int) *bars {
	v := &bars{look: l, verbose: verbose, w: w, limit: barsMax, delay: make(chan struct{}), story: newStory(), shown: map[messages.StreamID]*mpb.Bar{}}
	if f, ok := w.(*os.File); ok {
		if _, rows, err := term.GetSize(int(f.Fd())); err == nil { //nolint:gosec // a descriptor is small
			v.limit = min(v.limit, max(1, rows-4)) // more than the screen holds cannot be redrawn
		}
	}
	v.p = mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(120*time.Millisecond), mpb.WithRenderDelay(v.delay))
	v.total = v.p.MustAdd(0, v.filler(v.totalLine), mpb.BarPriority(math.MaxInt), mpb.BarFillerTrim())
	v.timer = time.AfterFunc(showAfter, v.begin)
	return v
}

// begin starts to draw.
func (v *bars) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.begun {
		v.begun = true
		close(v.delay)
	}
}

func (v *bars) event(e messages.Event) {
	v.mu.Lock()
	v.story.event(e)
	v.mu.Unlock()
	text := noteText(e, v.look)
	if text == "" && v.verbose > 0 {
		text = detailText(e)
	}
	if text == "" && v.verbose > 1 {
		text = reasonText(e)
	}
	if text != "" {
		if e.Stream != "" {
			text = v.look.name(string(e.Stream)) + ": " + text
		}
		_, _ = v.Write([]byte("\r" + text + "\n")) // nobody is left to be told
	}
	switch e.Kind {
	case messages.EventTaskStarted:
		v.show(e.Stream)
	case messages.EventStreamFinished, messages.EventStreamFailed:
		v.hide(e.Stream)
	case messages.EventRunStarted, messages.EventStreamPlanned, messages.EventProgress, messages.EventCheckpoint, messages.EventTaskRetry,
		messages.EventTaskEnded, messages.EventNote, messages.EventWarning, messages.EventDraining, messages.EventRunRetry, messages.EventRunEnded:
	}
}

// Write prints above the bars.
func (v *bars) Write(b []byte) (int, error) {
	v.begin()
	return v.p.Write(b)
}

func (v *bars) show(id messages.StreamID) {
	v.mu.Lock()
	m, full := v.story.stream(id), v.shown[id] != nil || len(v.shown) >= v.limit
	v.mu.Unlock()
	if full {
		return
	}
	// Not under the lock: the library may be waiting for a line of ours.
	b := v.p.MustAdd(0, v.filler(func(now time.Time, width int) string { return v.streamLine(m, now, width) }), mpb.BarFillerTrim())
	v.mu.Lock()
	v.shown[id] = b
	v.mu.Unlock()
}

func (v *bars) hide(id messages.StreamID) {
	v.mu.Lock()
	b := v.shown[id]
	delete(v.shown, id)
	v.mu.Unlock()
	if b != nil {
		b.Abort(true)
		b.Wait()
	}
}

func (v *bars) close() {
	v.timer.Stop()
	for _, id := range v.visible() {
		v.hide(id)
	}
	v.total.Abort(true)
	v.p.Wait()
}

func (v *bars) visible() []messages.StreamID {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Collect(maps.Keys(v.shown))
}

// filler adapts a line of ours: it is called for each frame.
func (v *bars) filler(line func(now time.Time, width int) string) mpb.BarFiller {
	return mpb.BarFillerFunc(func(w io.Writer, st decor.Statistics) error {
		v.mu.Lock()
		defer v.mu.Unlock()
		_, err := io.WriteString(w, line(time.Now(), st.AvailableWidth-1))
		return err
	})
}

// streamLine is the line of one stream: as much of it as fits.
func (v *bars) streamLine(m *meter, now time.Time, space int) string {
	const names = 22
	name := pad(v.look.cut(escape(string(m.name)), names), v.nameWidth(names))
	if m.waiting != "" {
		text := fmt.Sprintf("%s rows  waiting: %s", number(m.read), escape(m.waiting))
		return fmt.Sprintf("  %s %s  %s", v.look.warn(), name, v.look.cut(text, space-width(name)-6))
	}
	rows, bytes := m.rate(now)
	parts := []string{fmt.Sprintf("%13s rows", number(m.read)), fmt.Sprintf("%6s rows/s", short(rows)), fmt.Sprintf("%7.1f MiB/s", bytes/(1<<20))}
	if d, ok := m.eta(now); ok && m.state == meterRunning {
		parts = append(parts, "ETA "+eta(d))
	}
	line := "  " + v.spinner(now) + " " + name
	left := space - width(line) - 2*len(parts)
	for _, p := range parts {
		left -= width(p)
	}
	const percent = 6
	if wide := min(left-percent-2, barWidthMax); wide >= 6 && m.total > 0 {
		done := min(1, float64(m.read)/float64(m.total))
		line += "  " + v.bar(done, wide) + fmt.Sprintf(" %3.0f%%", done*100)
	}
	for _, p := range parts {
		if width(line)+2+width(p) <= space {
			line += "  " + p
		}
	}
	return line
}

// nameWidth is what the widest name on the screen takes, so that figures align.
func (v *bars) nameWidth(most int) int {
	w := 0
	for id := range v.shown {
		w = max(w, width(v.look.cut(escape(string(id)), most)))
	}
	return w
}

// totalLine is the last line: the run as a whole.
func (v *bars) totalLine(now time.Time, space int) string {
	var done, failed, waiting int
	var read int64
	var rows, bytes float64
	for _, m := range v.story.streams {
		switch m.state {
		case meterDone:
			done++
		case meterFailed:
			failed++
		case meterPlanned:
			waiting++
		case meterRunning:
			r, b := m.rate(now)
			rows, bytes = rows+r, bytes+b
		}
		read += m.read
	}
	parts := []string{fmt.Sprintf("%d of %d streams", done, len(v.story.streams))}
	if len(v.story.streams) == 0 {
		parts = []string{"preparing"}
	}
	if failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", failed))
	}
	if hidden := len(v.story.streams) - done - failed - waiting - len(v.shown); hidden > 0 {
		parts = append(parts, fmt.Sprintf("%d more running", hidden))
	}
	parts = append(parts, number(read)+" rows", short(rows)+" rows/s", fmt.Sprintf("%.1f MiB/s", bytes/(1<<20)))
	if !v.story.started.IsZero() {
		parts = append(parts, took(now.Sub(v.story.started).Truncate(100*time.Millisecond)))
	}
	text := escape(string(v.story.pipeline)) + "  " + strings.Join(parts, "  ")
	if v.story.draining != "" {
		text = escape(v.story.draining) + ": stopping at the next committed position  " + strings.Join(parts, "  ")
	}
	return v.look.dim(v.look.cut("  "+text, space))
}

// spinner shows that the program lives.
func (v *bars) spinner(now time.Time) string {
	frames := []rune(v.look.pick("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", `|/-\`))
	return v.look.green(string(frames[int(now.UnixMilli()/120)%len(frames)]))
}

// bar draws done of wide cells, in eighths where the terminal has them.
func (v *bars) bar(done float64, wide int) string {
	if !v.look.unicode {
		n := int(done * float64(wide))
		return "[" + strings.Repeat("#", n) + strings.Repeat(".", wide-n) + "]"
	}
	eighths := int(done * float64(wide) * 8)
	full := eighths / 8
	s := strings.Repeat("█", full)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[rest-1])
		full++
	}
	return v.look.green(s) + v.look.dim(strings.Repeat("─", wide-full))
}
