package postgres

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
)

const (
	flushMin  = 1 << 20
	flushMax  = 32 << 20
	flushRows = 4096 // rows of mean size that are worth one write: more only take memory
)

// flushInput is everything that the size of a write depends on. Zero means unset.
type flushInput struct {
	Pin      int64 // resources.autotune.flush_bytes of the document
	Autotune int64 // what the engine measured to be best
	Config   int64 // copy_flush_bytes of the connector
	MeanRow  int64 // bytes of an encoded row, so far
}

// decideFlush returns how many encoded bytes are collected before they are sent, and
// why so many: the document's pin, then autotune's decision, then the connector's
// configuration, then so many that flushRows rows of mean size fit, within 1 and 32 MiB.
// A pin or setting is clamped to the same bounds. It never changes what is written.
func decideFlush(in flushInput) (bytes int64, reason string) {
	clamp := func(n int64) int64 { return min(max(n, flushMin), flushMax) }
	say := func(n int64, why string) (int64, string) {
		c := clamp(n)
		if c != n {
			why += fmt.Sprintf(", %s clamped", connectors.ByteSize(n))
		}
		return c, fmt.Sprintf("%s (%s)", connectors.ByteSize(c), why)
	}
	switch {
	case in.Pin > 0:
		return say(in.Pin, "resources.autotune.flush_bytes")
	case in.Autotune > 0:
		return say(in.Autotune, "autotune")
	case in.Config > 0:
		return say(in.Config, "copy_flush_bytes")
	case in.MeanRow > 0:
		c := clamp(in.MeanRow * flushRows)
		return c, fmt.Sprintf("%d kb (adaptive: rows of about %d bytes)", c>>10, in.MeanRow)
	}
	return flushMin, "1mb (adaptive: no row seen yet)"
}

// flushPolicy applies decideFlush to what a sink sees.
type flushPolicy struct {
	pin, config    int64
	rows, rowBytes int64
	size           int64 // of the last decision; 0: none yet
	next           int64 // rows at which it is made again
}

// saw counts encoded rows.
func (f *flushPolicy) saw(rows, bytes int64) {
	f.rows += rows
	f.rowBytes += bytes
}

// bytes returns the size of a write. It is decided again as the rows seen double.
func (f *flushPolicy) bytes() int64 {
	if f.size == 0 || f.rows >= f.next {
		f.size, _ = decideFlush(f.input())
		f.next = max(1024, 2*f.rows)
	}
	return f.size
}

// pinned reports whether somebody has said how large a write is.
func (f *flushPolicy) pinned() bool { return f.pin > 0 || f.config > 0 }

func (f *flushPolicy) input() flushInput {
	in := flushInput{Pin: f.pin, Config: f.config}
	if f.rows > 0 {
		in.MeanRow = max(1, f.rowBytes/f.rows)
	}
	return in
}

func (f *flushPolicy) reason() string {
	_, why := decideFlush(f.input())
	return why
}

// guess begins with what the schema says of the size of a row.
func (f *flushPolicy) guess(s *arrow.Schema) {
	if f.rows > 0 {
		return
	}
	const text = 24 // bytes of a value without a fixed width, as a guess
	n := int64(2)
	for _, c := range s.Fields() {
		n += 4
		if w, ok := c.Type.(arrow.FixedWidthDataType); ok {
			n += int64(max(1, w.Bytes()))
		} else {
			n += text
		}
	}
	f.saw(1, n)
}
