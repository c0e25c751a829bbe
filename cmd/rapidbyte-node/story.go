package main

import (
	"time"

	"rapidbyte.io/node/messages"
)

// story is what the events of a run add up to. It is not safe for concurrent use.
type story struct {
	pipeline messages.PipelineID
	run      string
	started  time.Time
	draining string // the reason; empty: not draining
	order    []messages.StreamID
	streams  map[messages.StreamID]*meter
}

// meter holds the figures of one stream.
type meter struct {
	name          messages.StreamID
	total         int64 // rows expected; 0 unknown
	tasks         int
	read, written int64
	bytes         int64
	waiting       string // what a stalled stream waits for
	state         meterState
	started       time.Time // of its first task; zero: none has started
	ended         time.Time
	parts         map[messages.PartID]int64 // rows written, as checkpoints say
	window        []sample                  // of the last rateWindow, oldest first
}

type meterState uint8

const (
	meterPlanned meterState = iota
	meterRunning
	meterDone
	meterFailed
)

type sample struct {
	at    time.Time
	rows  int64
	bytes int64
}

// rateWindow is how far back a rate looks.
const rateWindow = 5 * time.Second

func newStory() *story { return &story{streams: map[messages.StreamID]*meter{}} }

// stream returns the meter of a stream, a new one for a name it has not met.
func (s *story) stream(id messages.StreamID) *meter {
	m := s.streams[id]
	if m == nil {
		m = &meter{name: id, parts: map[messages.PartID]int64{}}
		s.streams[id] = m
		s.order = append(s.order, id)
	}
	return m
}

// event adds one event.
func (s *story) event(e messages.Event) {
	switch e.Kind {
	case messages.EventRunStarted:
		s.pipeline, s.run = e.Pipeline, e.Run
		if s.started.IsZero() {
			s.started = e.Time
		}
	case messages.EventStreamPlanned:
		m := s.stream(e.Stream)
		m.total, m.tasks = e.Total, e.Tasks
	case messages.EventTaskStarted:
		m := s.stream(e.Stream)
		if m.started.IsZero() {
			m.started, m.window = e.Time, []sample{{at: e.Time}}
		}
		m.state = meterRunning
	case messages.EventProgress:
		s.stream(e.Stream).progress(e)
	case messages.EventCheckpoint:
		m := s.stream(e.Stream)
		m.parts[e.Part] = e.RowsWritten
		var sum int64
		for _, n := range m.parts {
			sum += n
		}
		m.written = max(m.written, sum)
	case messages.EventStreamFinished:
		m := s.stream(e.Stream)
		m.state, m.ended, m.waiting = meterDone, e.Time, ""
	case messages.EventStreamFailed:
		m := s.stream(e.Stream)
		m.state, m.ended, m.waiting = meterFailed, e.Time, ""
	case messages.EventDraining:
		s.draining = e.Message
	case messages.EventTaskRetry, messages.EventTaskEnded, messages.EventNote, messages.EventWarning, messages.EventRunRetry, messages.EventRunEnded:
	}
}

func (m *meter) progress(e messages.Event) {
	if e.Total > 0 {
		m.total = e.Total
	}
	m.read, m.bytes, m.waiting = e.RowsRead, e.Bytes, e.Waiting
	m.written = max(m.written, e.RowsWritten)
	m.window = append(m.window, sample{at: e.Time, rows: e.RowsRead, bytes: e.Bytes})
	for len(m.window) > 2 && e.Time.Sub(m.window[1].at) > rateWindow {
		m.window = m.window[1:]
	}
}

// rate returns rows and bytes per second over the window that ends now.
func (m *meter) rate(now time.Time) (rows, bytes float64) {
	if len(m.window) < 2 {
		return 0, 0
	}
	first, last := m.window[0], m.window[len(m.window)-1]
	seconds := max(now.Sub(first.at), last.at.Sub(first.at)).Seconds()
	if seconds <= 0 || now.Sub(last.at) > 2*rateWindow {
		return 0, 0 // nothing has been heard for so long that there is no rate
	}
	return max(0, float64(last.rows-first.rows)/seconds), max(0, float64(last.bytes-first.bytes)/seconds)
}

// eta returns the time to go; ok is false where no total or no rate is known.
func (m *meter) eta(now time.Time) (d time.Duration, ok bool) {
	rows, _ := m.rate(now)
	if m.total <= 0 || rows <= 0 || m.read > m.total {
		return 0, false
	}
	return time.Duration(float64(m.total-m.read) / rows * float64(time.Second)), true
}

// took returns how long the stream has been moving.
func (m *meter) took(now time.Time) time.Duration {
	switch {
	case m.started.IsZero():
		return 0
	case m.ended.IsZero():
		return now.Sub(m.started)
	}
	return m.ended.Sub(m.started)
}
