package conntest

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"go.uber.org/goleak"
)

// T is what a check needs of a test. *testing.T implements it.
type T interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	FailNow()
	Failed() bool
	Cleanup(f func())
	TempDir() string
	Context() context.Context
}

// Check is one promise of the contract, as a test on a factory of type F.
type Check[F any] struct {
	Name string
	Run  func(t T, f F)
}

// runAll runs each check as a subtest, one after the other.
func runAll[F any](t *testing.T, checks []Check[F], f F) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.Name, func(t *testing.T) { c.guarded(t, f) })
	}
}

// Caught runs checks against f and returns, by the name of the check, what each
// failing one reported. t does not fail.
func Caught[F any](t T, checks []Check[F], f F) map[string][]string {
	caught := make(map[string][]string)
	for _, c := range checks {
		if said := Record(t, c.Name, func(t T) { c.guarded(t, f) }); len(said) > 0 {
			caught[c.Name] = said
		}
	}
	return caught
}

// guarded runs the check and fails it if goroutines outlive it.
func (c Check[F]) guarded(t T, f F) {
	known := goleak.IgnoreCurrent()
	t.Cleanup(func() { // registered first, so it runs after the cleanups of the factory
		if err := goleak.Find(known); err != nil {
			t.Errorf("leaked goroutine: %v", err)
		}
	})
	c.Run(t, f)
}

// checked returns an allocator that must be empty when the test ends.
func checked(t T) *memory.CheckedAllocator {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	t.Cleanup(func() {
		if n := mem.CurrentAlloc(); n != 0 {
			t.Errorf("leaked batch: %d bytes of Arrow memory were not released", n)
		}
	})
	return mem
}

// Record runs f with a T of its own and returns what f reported, in order; empty
// means that it passed. A panic is reported too. t does not fail.
func Record(t T, name string, f func(t T)) []string {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &recorder{outer: t, name: name, ctx: func() context.Context { return ctx }}
	r.run(func() { f(r) })
	cancel()
	for {
		r.mu.Lock()
		if len(r.cleanups) == 0 {
			r.mu.Unlock()
			break
		}
		last := r.cleanups[len(r.cleanups)-1]
		r.cleanups = r.cleanups[:len(r.cleanups)-1]
		r.mu.Unlock()
		r.run(last)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said
}

// recorder is a T that keeps what is reported.
type recorder struct {
	outer T
	name  string
	ctx   func() context.Context

	mu       sync.Mutex
	said     []string
	cleanups []func()
}

// run calls f on a goroutine of its own, which FailNow can end.
func (r *recorder) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				r.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		f()
	}()
	<-done
}

func (r *recorder) Helper()                  {}
func (r *recorder) Name() string             { return r.outer.Name() + "/" + r.name }
func (r *recorder) Logf(_ string, _ ...any)  {}
func (r *recorder) Context() context.Context { return r.ctx() }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

// FailNow ends the goroutine of the check, as testing.T does.
func (r *recorder) FailNow() {
	r.mu.Lock()
	if len(r.said) == 0 {
		r.said = append(r.said, "failed without saying why")
	}
	r.mu.Unlock()
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.said) > 0
}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

// TempDir returns a folder that is removed with the recorder's cleanups.
func (r *recorder) TempDir() string {
	dir, err := os.MkdirTemp(r.outer.TempDir(), "recorded")
	if err != nil {
		r.Errorf("make a temporary folder: %v", err)
		r.FailNow()
	}
	r.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
