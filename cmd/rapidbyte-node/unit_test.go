package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// signalled returns a stopper and where its signals come from.
func signalled(t *testing.T) (*stopper, chan os.Signal) {
	t.Helper()
	ch := make(chan os.Signal)
	a := &app{notify: func() (<-chan os.Signal, func()) { return ch, func() {} }}
	s := a.watch(t.Context())
	t.Cleanup(s.close)
	return s, ch
}

func TestTheFirstSignalDrainsTheSecondStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ch := signalled(t)
		var drained []string
		s.draining(func(reason string) { drained = append(drained, reason) })
		ch <- syscall.SIGTERM
		synctest.Wait()
		require.Equal(t, []string{"SIGTERM"}, drained)
		require.NoError(t, s.ctx.Err(), "a drain cancels nothing")

		ch <- syscall.SIGTERM // a wrapper sent it again
		synctest.Wait()
		require.Equal(t, []string{"SIGTERM"}, s.signals())
		time.Sleep(signalsApart)
		ch <- os.Interrupt
		synctest.Wait()
		require.ErrorIs(t, s.ctx.Err(), context.Canceled)
		require.Equal(t, []string{"SIGTERM", "SIGINT"}, s.signals())
		time.Sleep(stopWithin)
		synctest.Wait()
		<-s.gaveUp
	})
}

func TestADrainIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ch := signalled(t)
		s.draining(func(string) {})
		began := time.Now()
		ch <- syscall.SIGTERM
		<-s.gaveUp
		require.Less(t, time.Since(began), 10*time.Second)
	})
}

func TestASignalBeforeARunCancelsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ch := signalled(t)
		done := make(chan outcome)
		go func() {
			done <- s.within(func(ctx context.Context) outcome {
				<-ctx.Done()
				return s.failed(errors.New("connection closed"))
			})
		}()
		ch <- os.Interrupt
		o := <-done
		require.Equal(t, messages.ExitCancelled, o.exit())
		require.Equal(t, "stopped before anything moved", o.failures[0].What)
	})
}

func TestWhatDoesNotEndIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ch := signalled(t)
		release := make(chan struct{})
		done := make(chan outcome)
		go func() {
			done <- s.within(func(context.Context) outcome { <-release; return outcome{} })
		}()
		ch <- os.Interrupt
		o := <-done
		require.Equal(t, messages.ExitCancelled, o.exit())
		close(release)
	})
}

func TestAPanicIsAnErrorWithACode(t *testing.T) {
	s, _ := signalled(t)
	o := s.within(func(context.Context) outcome { panic("boom") })
	require.Equal(t, messages.ExitInternal, o.exit())
	require.Contains(t, o.failures[0].Why, "boom")
	require.Equal(t, messages.CodePanic, o.failures[0].Code)
}

func event(kind messages.EventKind, at int, stream messages.StreamID) messages.Event {
	return messages.Event{Kind: kind, Stream: stream, Pipeline: "shop", Run: "r", Time: time.Unix(1_000_000+int64(at), 0)}
}

func progressed(at int, stream messages.StreamID, read, total int64) messages.Event {
	e := event(messages.EventProgress, at, stream)
	e.RowsRead, e.Bytes, e.Total = read, read<<10, total
	return e
}

func TestRatesLookBackAFewSeconds(t *testing.T) {
	s := newStory()
	s.event(event(messages.EventRunStarted, 0, ""))
	s.event(event(messages.EventTaskStarted, 0, "a"))
	m := s.stream("a")
	rows, _ := m.rate(time.Unix(1_000_001, 0))
	require.Zero(t, rows)
	for i := 1; i <= 20; i++ { // 1000 rows/s, then 100
		n := int64(min(i, 10))*1000 + int64(max(0, i-10))*100
		s.event(progressed(i, "a", n, 12_000))
	}
	now := time.Unix(1_000_020, 0)
	rows, bytes := m.rate(now)
	require.InDelta(t, 100, rows, 1)
	require.InDelta(t, 100<<10, bytes, 1<<10)
	d, ok := m.eta(now)
	require.True(t, ok)
	require.InDelta(t, 10, d.Seconds(), 1)
	rows, _ = m.rate(now.Add(time.Minute))
	require.Zero(t, rows, "a stream that was not heard of for long has no rate")
	_, ok = m.eta(now.Add(time.Minute))
	require.False(t, ok)
}

func TestLinesSayOneThingPerEvent(t *testing.T) {
	var b bytes.Buffer
	v := newLines(&b, look{}, 0)
	planned := event(messages.EventStreamPlanned, 0, "a")
	planned.Tasks, planned.Total = 2, 10_000
	retry := event(messages.EventTaskRetry, 8, "a")
	retry.Delay, retry.Failure = 1500*time.Millisecond, &messages.Failure{Code: messages.CodeDest, What: "write\nbatch"}
	stalled := progressed(20, "a", 5000, 10_000)
	stalled.Waiting = "destination: committing"
	drain := event(messages.EventDraining, 21, "")
	drain.Message = "SIGTERM"
	warning := event(messages.EventWarning, 22, "a")
	warning.Message = "two snapshots"
	failed := event(messages.EventStreamFailed, 23, "a")
	failed.Failure = retry.Failure
	for _, e := range []messages.Event{
		event(messages.EventRunStarted, 0, ""), planned, event(messages.EventTaskStarted, 0, "a"),
		progressed(1, "a", 1000, 10_000), progressed(2, "a", 2000, 10_000), progressed(7, "a", 4000, 10_000),
		retry, stalled, drain, warning, failed,
	} {
		v.event(e)
	}
	v.close()
	text := b.String()
	for _, want := range []string{
		"shop: run r started\n", "a: planned: 2 tasks, about 10,000 rows\n",
		"a: 4,000 of 10,000 rows read, 0 written, 500 rows/s, 0.5 MiB/s, ETA 12s\n",
		`a: ! trying again in 1.5 s: RB-5001 write\nbatch` + "\n",
		"a: 5,000 of 10,000 rows read, 0 written, waiting: destination: committing\n",
		"shop: ! SIGTERM: stopping at the next committed position; once more stops at once\n",
		"a: ! two snapshots\n", `a: x failed: RB-5001 write\nbatch` + "\n",
	} {
		require.Contains(t, text, want)
	}
	require.Equal(t, 8, strings.Count(text, "\n"), text)
}

func TestVerboseLinesShowEveryEvent(t *testing.T) {
	var b bytes.Buffer
	v := newLines(&b, look{}, 1)
	task := event(messages.EventTaskStarted, 0, "a")
	task.Part, task.Token = "a/1", messages.Token{Epoch: 3, Attempt: 2}
	saved := event(messages.EventCheckpoint, 1, "a")
	saved.Part, saved.RowsWritten, saved.Position = "a/1", 500, "(1, 2)"
	ended := event(messages.EventTaskEnded, 2, "a")
	ended.Part = "a/1"
	over := event(messages.EventRunEnded, 3, "")
	over.State = messages.RunCompleted
	for _, e := range []messages.Event{task, progressed(1, "a", 10, 0), saved, ended, over} {
		v.event(e)
	}
	for _, want := range []string{
		"task a/1 started, attempt 2 of epoch 3", "10 rows read", "task a/1 committed 500 rows at (1, 2)", "task a/1 ended", "run completed",
	} {
		require.Contains(t, b.String(), want)
	}
}

// The lines of the terminal fit it, whatever it is called and however small it is.
func TestTerminalLinesFit(t *testing.T) {
	for _, l := range []look{{}, {unicode: true, color: true}} {
		v := &bars{look: l, story: newStory(), shown: nil}
		name := messages.StreamID("a_long_name_of_a_stream_客户表\x1b[31m")
		v.tell(event(messages.EventRunStarted, 0, ""))
		v.tell(event(messages.EventTaskStarted, 0, name))
		v.tell(progressed(2, name, 1_234_567, 2_000_000))
		now := time.Unix(1_000_003, 0)
		for _, w := range []int{40, 60, 79, 120, 200} {
			m := v.story.stream(name)
			m.waiting = ""
			line := v.streamLine(m, now, w)
			require.LessOrEqual(t, width(line), w, "%q", line)
			require.LessOrEqual(t, width(v.totalLine(now, w)), w)
			if w >= 120 {
				require.Contains(t, line, " 62%")
				require.Contains(t, line, "1,234,567 rows")
				require.Contains(t, line, "412k rows/s")
				require.Contains(t, line, "401.9 MiB/s")
				require.Contains(t, line, "ETA 2s")
			}
			m.waiting = "destination: committing barrier 40"
			line = v.streamLine(m, now, w)
			require.LessOrEqual(t, width(line), w, "%q", line)
			if w >= 120 {
				require.Contains(t, line, "waiting: destination: committing barrier 40")
			}
			require.NotContains(t, line, "\x1b[31mx")
		}
		v.tell(func() messages.Event { e := event(messages.EventDraining, 3, ""); e.Message = "SIGTERM"; return e }())
		require.Contains(t, v.totalLine(now, 120), "SIGTERM: stopping at the next committed position")
	}
}

// tell tells the story without drawing.
func (v *bars) tell(e messages.Event) { v.story.event(e) }

// Bars leave the screen as they found it: only what is worth remembering stays.
func TestBarsLeaveNothingBehind(t *testing.T) {
	var b lockedBuffer
	v := newBars(&b, look{unicode: true, color: true}, 0)
	v.begin()
	v.event(event(messages.EventRunStarted, 0, ""))
	for i := range barsMax + 4 {
		v.event(event(messages.EventTaskStarted, 0, messages.StreamID(fmt.Sprintf("stream%d", i))))
	}
	time.Sleep(300 * time.Millisecond) // two frames
	warning := event(messages.EventWarning, 1, "stream1")
	warning.Message = "look here"
	v.event(warning)
	v.event(event(messages.EventStreamFinished, 2, "stream0"))
	v.event(event(messages.EventStreamFailed, 2, "stream1"))
	_, err := v.Write([]byte("a log line\n"))
	require.NoError(t, err)
	v.close()
	text := b.String()
	require.Contains(t, text, "4 more running")
	require.Contains(t, text, "look here")
	require.Contains(t, text, "a log line")
	require.Empty(t, v.shown)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The feed never blocks an actor, keeps the order, and merges progress.
func TestAFeedWithASlowReaderKeepsWhatMatters(t *testing.T) {
	release := make(chan struct{})
	var got []messages.Event
	f := newFeed(func(e messages.Event) {
		<-release
		got = append(got, e)
	})
	const senders, each = 4, 20_000
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			s := messages.StreamID(rune('a' + i))
			for n := range each {
				f.observe(messages.Event{Kind: messages.EventProgress, Stream: s, RowsRead: int64(n)})
			}
			f.observe(messages.Event{Kind: messages.EventStreamFinished, Stream: s})
		})
	}
	all.Wait()
	close(release)
	f.close()
	f.observe(messages.Event{Kind: messages.EventRunEnded}) // after the end: ignored
	require.Less(t, len(got), senders*4)
	last := map[messages.StreamID]messages.Event{}
	for _, e := range got {
		if e.Kind == messages.EventStreamFinished {
			require.EqualValues(t, each-1, last[e.Stream].RowsRead, "the last figures come before the end")
		}
		last[e.Stream] = e
	}
	require.Len(t, last, senders)
}

func TestAFeedThatIsFullSaysWhatItDropped(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var got []messages.Event
	f := newFeed(func(e messages.Event) {
		once.Do(func() { close(entered) })
		<-release
		got = append(got, e)
	})
	f.observe(messages.Event{Kind: messages.EventCheckpoint})
	<-entered
	for range queueMax + 10 {
		f.observe(messages.Event{Kind: messages.EventCheckpoint})
	}
	close(release)
	f.close()
	last := got[len(got)-1]
	require.Equal(t, messages.EventWarning, last.Kind)
	require.Equal(t, "10 events were not recorded: their reader is too slow", last.Message)
}

// What a run says at its end, in each way it can end.
func TestTheSummaryTellsHowEachStreamEnded(t *testing.T) {
	spec := run.Spec{Pipeline: "shop"}
	for _, s := range []messages.StreamID{"orders", "users", "logs"} {
		spec.Streams = append(spec.Streams, run.Stream{StreamSpec: connectors.StreamSpec{Stream: s}, Target: "raw_" + string(s)})
	}
	st := newStory()
	st.event(event(messages.EventRunStarted, 0, ""))
	st.event(event(messages.EventTaskStarted, 0, "orders"))
	st.event(event(messages.EventStreamFinished, 4, "orders"))
	broken := messages.Failure{Code: messages.CodeSource, What: "read"}
	r := messages.RunResult{
		Pipeline: "shop", RunID: "r", State: messages.RunFailed, Elapsed: 90 * time.Second, Failure: &broken, Warnings: []string{"a\nb"},
		Streams: []messages.StreamResult{
			{Stream: "orders", Target: "raw_orders", State: messages.RunCompleted, RowsRead: 1_234_567, RowsWritten: 1_234_560, RowsRejected: 7, Bytes: 3 << 30, Tasks: 4, Retries: 2},
			{Stream: "users", Target: "users", State: messages.RunFailed, RowsRead: 5, RowsWritten: 5, Bytes: 100, Tasks: 1, Failure: &broken},
		},
	}
	complete(&r, spec, st)
	require.Len(t, r.Streams, 2, "a stream that was never begun says nothing in a failed run")
	s := summary{result: runResult{Pipeline: "shop", RunID: "r", State: r.State, Streams: r.Streams, Warnings: r.Warnings, Store: "s.db"}, elapsed: r.Elapsed, story: st, policy: connectors.DataDLQ, path: "my shop.yaml"}
	require.Equal(t, `✗ shop  failed after 1m 30s
  ⚠  orders  1,234,567  →  1,234,560  rows  3072.0 MiB   4.0 s  in raw_orders, 7 rejected, 2 retries
  ✗  users           5  →          5  rows       100 B          RB-4001
     total   1,234,572  →  1,234,565  rows  3072.0 MiB  1m 30s  14k rows/s, 34.1 MiB/s
  ⚠ a\nb
  rejected rows → rapidbyte-node dlq list 'my shop.yaml'
  run r, state in s.db
`, s.text(look{unicode: true}))
	require.Equal(t, "failed; wrote 1,234,565 rows of 2 streams in 1m 30s, 7 rejected", s.line())
	s.policy = connectors.DataSkip
	require.NotContains(t, s.text(look{}), "dlq list", "a skipped row is nowhere")
	require.Equal(t, []messages.Failure{broken}, causes(r))
	other := messages.Failure{Code: messages.CodeDest, What: "write"}
	r.Streams[0].Failure = &other
	require.Equal(t, []messages.Failure{broken, other}, causes(r))

	narrow := s.text(look{unicode: true, columns: 60})
	require.NotContains(t, narrow, "raw_orders_")
}

// A run that was left behind is described by what its events said.
func TestALeftBehindRunIsToldFromItsEvents(t *testing.T) {
	st := newStory()
	st.event(event(messages.EventRunStarted, 0, ""))
	st.event(event(messages.EventTaskStarted, 0, "a"))
	for _, part := range []messages.PartID{"a/0", "a/1"} {
		e := event(messages.EventCheckpoint, 1, "a")
		e.Part, e.RowsWritten = part, 50
		st.event(e)
	}
	r := messages.RunResult{Pipeline: "shop", State: messages.RunDrained}
	complete(&r, run.Spec{Streams: []run.Stream{{StreamSpec: connectors.StreamSpec{Stream: "a"}, Target: "a"}, {StreamSpec: connectors.StreamSpec{Stream: "b"}}}}, st)
	require.Equal(t, "r", r.RunID)
	require.Len(t, r.Streams, 1)
	require.EqualValues(t, 100, r.Streams[0].RowsWritten)
	f := drained(runResult{Pipeline: "shop", Streams: r.Streams}, []string{"SIGTERM", "SIGINT"})
	require.Equal(t, "the run was stopped; 100 rows of this run are committed", f.What)
}

func TestFiguresReadWell(t *testing.T) {
	require.Equal(t, "-1,204,000", number(-1204000))
	require.Equal(t, "999", number(999))
	for _, c := range []struct {
		v    float64
		want string
	}{{0, "0"}, {999, "999"}, {1000, "1.0k"}, {41_200, "41k"}, {999_900, "1.0M"}, {4.1e6, "4.1M"}, {2e9, "2.0G"}} {
		require.Equal(t, c.want, short(c.v))
	}
	for _, c := range []struct {
		v    float64
		want string
	}{{0, "0 B"}, {1023, "1023 B"}, {2048, "2.0 KiB"}, {1 << 20, "1.0 MiB"}, {11 << 30, "11.0 GiB"}} {
		require.Equal(t, c.want, size(c.v))
	}
	for _, c := range []struct {
		v    time.Duration
		want string
	}{{time.Millisecond, "1 ms"}, {1500 * time.Millisecond, "1.5 s"}, {65 * time.Second, "1m 05s"}, {2*time.Hour + 3*time.Minute, "2h 03m"}} {
		require.Equal(t, c.want, took(c.v))
	}
	require.Equal(t, 6, width("\x1b[31m客户表\x1b[0m"))
	require.Equal(t, "客户表 ", pad("客户表", 7))
	require.Equal(t, " 7", pad("7", -2))
}

// The path of the document takes its one place in a command. In quotes, where the names of
// streams stand, it would end them.
func TestThePathOfTheDocumentBreaksNoQuotes(t *testing.T) {
	for next, want := range map[string]string{
		"Look: " + messages.Command("state", "show", messages.Document) + ".":                                                                                "Look: `rapidbyte-node state show 'it'\\''s.yaml'`.",
		messages.Command("state", "reset", messages.Document, "--stream", "x DOCUMENT; rm -rf ~ #"):                                                          "`rapidbyte-node state reset 'it'\\''s.yaml' --stream 'x DOCUMENT; rm -rf ~ #'`",
		messages.Command("state", "reset", messages.Document, "--stream", messages.Document):                                                                 "`rapidbyte-node state reset 'it'\\''s.yaml' --stream DOCUMENT`",
		messages.Command("state", "reset", messages.Document, "--stream", "`rapidbyte-node run DOCUMENT`"):                                                   "`rapidbyte-node state reset 'it'\\''s.yaml' --stream '`rapidbyte-node run DOCUMENT`'`",
		messages.Command("state", "reset", messages.Document, "--stream", "it's DOCUMENT"):                                                                   "`rapidbyte-node state reset 'it'\\''s.yaml' --stream 'it'\\''s DOCUMENT'`",
		messages.Command("runs", "list", "my DOCUMENT.yaml") + " lists them.":                                                                                "`rapidbyte-node runs list 'my DOCUMENT.yaml'` lists them.",
		messages.Command("state", "rebuild", messages.Document) + " (" + messages.Command("run", messages.Document, "--rebuild-state") + " does, and runs).": "`rapidbyte-node state rebuild 'it'\\''s.yaml'` (`rapidbyte-node run 'it'\\''s.yaml' --rebuild-state` does, and runs).",
	} {
		o := outcome{failures: []messages.Failure{{Code: messages.CodeUsage, Next: next}}}.about("it's.yaml")
		require.Equal(t, want, o.failures[0].Next)
	}
	made := messages.Command("run", messages.Document, "--full-refresh", "--stream", "a`b") + "; empty the target"
	o := outcome{failures: []messages.Failure{{Code: messages.CodeUsage, Next: made}}}.about("")
	require.Equal(t, "the same command and `--full-refresh`; empty the target", o.failures[0].Next)
}
