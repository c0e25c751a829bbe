package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"
)

// What is sampled beside the CPU, so rarely that it costs nothing to speak of.
const (
	blockRate     = int(time.Millisecond) // nanoseconds of waiting per sample
	mutexFraction = 100                   // one contention in so many
)

// snapshots are the profiles that are taken at the end of a run.
var snapshots = []string{"heap", "goroutine", "mutex", "block"}

// profiler samples one run. The nil profiler does nothing.
type profiler struct {
	prefix string // of its files
	cpu    *os.File
}

// profile samples from here to stop. dir is made if it is not there; empty: no profile. The
// name of a file says when its run began and in which process, so that runs do not
// overwrite each other's.
func profile(dir, command string) (*profiler, error) {
	if dir == "" {
		return nil, nil //nolint:nilnil // documented
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, outputFailure("make the folder of the profiles", dir, err)
	}
	name := fmt.Sprintf("%s-%s-%d", command, time.Now().UTC().Format("20060102T150405.000Z"), os.Getpid())
	p := &profiler{prefix: filepath.Join(dir, name)}
	f, err := p.create("cpu")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, outputFailure("begin the profile", f.Name(), errors.Join(err, f.Close()))
	}
	p.cpu = f
	runtime.SetBlockProfileRate(blockRate)
	runtime.SetMutexProfileFraction(mutexFraction)
	return p, nil
}

func (p *profiler) create(kind string) (*os.File, error) {
	path := p.prefix + "." + kind + ".pprof"
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, outputFailure("create the profile", path, err)
	}
	return f, nil
}

// stop ends the sampling and writes the rest.
func (p *profiler) stop() error {
	if p == nil {
		return nil
	}
	pprof.StopCPUProfile()
	runtime.SetBlockProfileRate(0)
	runtime.SetMutexProfileFraction(0)
	var all error
	if err := p.cpu.Close(); err != nil {
		all = outputFailure("write the profile", p.cpu.Name(), err)
	}
	runtime.GC() // the heap is that of the last collection
	for _, kind := range snapshots {
		all = errors.Join(all, p.snapshot(kind))
	}
	return all
}

func (p *profiler) snapshot(kind string) error {
	f, err := p.create(kind)
	if err != nil {
		return err
	}
	if err := errors.Join(pprof.Lookup(kind).WriteTo(f, 0), f.Close()); err != nil {
		return outputFailure("write the profile", f.Name(), err)
	}
	return nil
}

// profiled is what do says about a run, and what went wrong with its profile.
func profiled(dir, command string, do func() outcome) (out outcome) {
	p, err := profile(dir, command)
	if err != nil {
		return failed(err)
	}
	defer func() {
		if err := p.stop(); err != nil {
			list, _ := failuresOf(err)
			out.failures = append(out.failures, list...)
		}
	}()
	return do()
}
