package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const (
	// drainWithin bounds what follows the first signal. The node gives tasks 7 s to
	// reach a committed position; the rest is for closing.
	drainWithin = 9500 * time.Millisecond
	// signalsApart is how long after the first signal another one is taken for the
	// same: a terminal and a wrapper such as timeout or make may both send it.
	signalsApart = 200 * time.Millisecond
	// stopWithin bounds what follows the second signal.
	stopWithin = 2 * time.Second
)

// notifySignals is signal.Notify for what process managers and terminals send.
func notifySignals() (<-chan os.Signal, func()) {
	ch := make(chan os.Signal, 4) // a third one is as good as a second
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	return ch, func() { signal.Stop(ch) }
}

// stopper turns signals into a drain, then into an end at once. It never waits for
// ever: gaveUp is closed when nobody should wait for the run any longer, which is
// safe, because everything committed has a receipt.
type stopper struct {
	ctx    context.Context //nolint:containedctx // its owner hands it out: it ends with the second signal
	gaveUp chan struct{}

	mu      sync.Mutex
	cancel  context.CancelFunc
	drain   func(reason string) // nil: nothing runs yet; the first signal cancels
	reasons []string            // the signals so far
	last    time.Time           // of the last one that counted
	timer   *time.Timer         // closes gaveUp
	once    sync.Once
	closed  chan struct{}
	done    sync.WaitGroup
}

// watch handles signals until close.
func (a *app) watch(ctx context.Context) *stopper {
	s := &stopper{gaveUp: make(chan struct{}), closed: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(ctx)
	ch, stop := a.notify()
	s.done.Go(func() {
		defer stop()
		for {
			select {
			case sig := <-ch:
				s.on(sig)
			case <-s.closed:
				return
			}
		}
	})
	return s
}

func (s *stopper) on(sig os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if len(s.reasons) == 1 && now.Sub(s.last) < signalsApart {
		return
	}
	s.last = now
	s.reasons = append(s.reasons, signalName(sig))
	if s.drain != nil && len(s.reasons) == 1 {
		s.drain(s.reasons[0])
		s.giveUpAfter(drainWithin)
		return
	}
	s.cancel()
	s.giveUpAfter(stopWithin)
}

// giveUpAfter sets the deadline; a later one never extends an earlier one.
func (s *stopper) giveUpAfter(d time.Duration) {
	if s.timer == nil {
		s.timer = time.AfterFunc(d, func() { s.once.Do(func() { close(s.gaveUp) }) })
		return
	}
	if d < drainWithin {
		s.timer.Reset(d)
	}
}

// draining says what the first signal does from now on. One that came before has
// ended ctx already.
func (s *stopper) draining(drain func(reason string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drain = drain
}

// signals returns the names of the signals so far.
func (s *stopper) signals() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.reasons...)
}

func (s *stopper) close() {
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	close(s.closed)
	s.done.Wait()
	s.cancel()
}

func signalName(s os.Signal) string {
	switch s {
	case os.Interrupt:
		return "SIGINT"
	case syscall.SIGTERM:
		return "SIGTERM"
	}
	return fmt.Sprint(s)
}
