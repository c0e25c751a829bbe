package main

import (
	"bufio"
	"encoding/json"
	"os"
	"sync"

	"rapidbyte.io/node/messages"
)

// queueMax bounds the events that wait for a slow terminal or disk. A stream needs
// about ten per attempt; progress is merged, so that only checkpoints add up.
const queueMax = 1 << 16

// feed carries events from actors, which must not wait, to whoever shows or records
// them, who may be slow. Events keep their order; a progress event replaces one of
// the same stream that nobody has seen yet.
type feed struct {
	sinks []func(messages.Event) // called from one goroutine

	mu      sync.Mutex
	queue   []messages.Event
	latest  map[messages.StreamID]int // index of the waiting progress event
	dropped int
	closed  bool
	wake    chan struct{} // capacity 1: there is something to do
	done    sync.WaitGroup
}

func newFeed(sinks ...func(messages.Event)) *feed {
	f := &feed{sinks: sinks, latest: map[messages.StreamID]int{}, wake: make(chan struct{}, 1)}
	f.done.Go(f.deliver)
	return f
}

// observe takes one event. It never blocks.
func (f *feed) observe(e messages.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, waits := f.latest[e.Stream]
	switch {
	case f.closed:
		return
	case e.Kind == messages.EventProgress && waits:
		f.queue[i] = e
	case len(f.queue) >= queueMax:
		f.dropped++
	default:
		if e.Kind == messages.EventProgress {
			f.latest[e.Stream] = len(f.queue)
		} else {
			delete(f.latest, e.Stream) // what follows must not overtake it
		}
		f.queue = append(f.queue, e)
	}
	select {
	case f.wake <- struct{}{}:
	default: // it will look anyway
	}
}

func (f *feed) deliver() {
	for range f.wake {
		for {
			f.mu.Lock()
			batch, dropped, closed := f.queue, f.dropped, f.closed
			f.queue, f.dropped = nil, 0
			clear(f.latest)
			f.mu.Unlock()
			if dropped > 0 {
				batch = append(batch, messages.Event{
					Kind: messages.EventWarning, Time: batch[len(batch)-1].Time, Pipeline: batch[0].Pipeline, Run: batch[0].Run,
					Message: count(int64(dropped), "event") + " were not recorded: their reader is too slow",
				})
			}
			for _, e := range batch {
				for _, sink := range f.sinks {
					sink(e)
				}
			}
			if len(batch) > 0 {
				continue
			}
			if closed {
				return
			}
			break
		}
	}
}

// close delivers what waits and returns when every sink has it.
func (f *feed) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
	f.done.Wait()
}

// recorder writes events as NDJSON.
type recorder struct {
	file *os.File // nil: standard output, which is not ours to close
	buf  *bufio.Writer
	err  error // the first one; nothing is written after it
	path string
}

// openEvents opens where the events go; nil for none.
func (a *app) openEvents(path string) (*recorder, error) {
	switch path {
	case "":
		return nil, nil //nolint:nilnil // no events are wanted
	case "-":
		a.toStderr = true
		return &recorder{buf: bufio.NewWriter(a.stdout), path: "standard output"}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644) //nolint:gosec // the user names the file
	if err != nil {
		return nil, outputFailure("write the events", path, err)
	}
	return &recorder{file: f, buf: bufio.NewWriter(f), path: path}, nil
}

// event writes one line. Each line is written through: a reader follows a run by it.
func (r *recorder) event(e messages.Event) {
	if r.err != nil {
		return
	}
	enc := json.NewEncoder(r.buf)
	enc.SetEscapeHTML(false)
	if r.err = enc.Encode(e); r.err == nil {
		r.err = r.buf.Flush()
	}
}

// close returns a failure when not every event was recorded.
func (r *recorder) close() error {
	if r == nil {
		return nil
	}
	if r.file != nil {
		if err := r.file.Close(); r.err == nil {
			r.err = err
		}
	}
	if r.err != nil {
		return outputFailure("write the events", r.path, r.err)
	}
	return nil
}
