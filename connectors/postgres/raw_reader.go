package postgres

import (
	"context"
	"errors"
	"fmt"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/messages"
)

// RawFormat implements connectors.RawReader. Rows whose order or position is found in
// their values are decoded.
func (s *Source) RawFormat(l connectors.Load) (format, why string) {
	for _, p := range l.Parts {
		split, err := decodeSplit(p.Split)
		if err != nil {
			return "", "its plan was made by another source"
		}
		f, why := split.rawFormat()
		switch {
		case why != "":
			return "", why
		case format != "" && f != format:
			return "", "its tasks read different columns"
		}
		format = f
	}
	return format, ""
}

// rawFormat is that of the rows of s.
func (s *readSplit) rawFormat() (format, why string) {
	switch {
	case s.Follow != nil:
		return "", "an incremental stream finds its position in the values"
	case s.Visible != len(s.Columns):
		return "", "more is read than the columns of the stream"
	}
	cols := make([]codec.Column, len(s.Columns))
	for i, c := range s.Columns {
		if c.Text {
			return "", fmt.Sprintf("column %s of type %s travels as text", c.Name, c.Type.SQL)
		}
		cols[i] = codec.Column{Name: c.Name, Type: c.Type, NotNull: c.NotNull}
	}
	return codec.RawFormat(cols, s.Endless)
}

// checkRaw makes sure that the rows of a part are what was agreed on.
func (s *readSplit) checkRaw(agreed string) error {
	if agreed == "" {
		return nil
	}
	if own, why := s.rawFormat(); own != agreed {
		return fmt.Errorf("rows in %s were agreed on, the part has %q %s", agreed, own, why)
	}
	return nil
}

// rawMost is the size of a batch of rows that are not decoded: a few writes to a server. A
// larger one saves nothing, and many of them wait in front of a slow destination.
const rawMost = 1 << 20

// cutter takes the CopyData messages of a COPY: a Decoder or a Framer.
type cutter interface {
	AppendMessages(messages []byte) (done int, err error)
	Ended() bool
	Rows() int64 // pending
}

// copyOut runs one COPY through cut. give moves on what is pending.
func (p *pass) copyOut(ctx context.Context, sql string, cut cutter, give func(context.Context) error) error {
	rows, err := p.reader.conn.CopyOutMessages(ctx, sql, func(messages []byte) error {
		p.alive.Add(1)
		done, err := cut.AppendMessages(messages)
		for errors.Is(err, codec.ErrFull) {
			if err := give(ctx); err != nil {
				return err
			}
			messages = messages[done:]
			done, err = cut.AppendMessages(messages)
		}
		return err
	})
	if err == nil && !cut.Ended() {
		err = errors.New("the server ended the copy in the middle of a row")
	}
	if err == nil {
		err = give(ctx)
	}
	if err == nil {
		p.before += rows
	}
	return err
}

// copyRaw runs one COPY and emits its rows as they are.
func (p *pass) copyRaw(ctx context.Context, sql string) error {
	r := p.reader
	if p.framer == nil {
		limits := r.limits()
		if limits.BatchBytes <= 0 || limits.BatchBytes > rawMost {
			limits.BatchBytes = rawMost
		}
		p.framer = codec.NewFramer(len(r.split.Columns), r.mem, limits)
	}
	p.framer.Reset()
	return p.copyOut(ctx, sql, p.framer, p.emitRaw)
}

// emitRaw moves the pending rows downstream.
func (p *pass) emitRaw(ctx context.Context) error {
	frame := p.framer.Take()
	if frame == nil {
		return nil
	}
	rows := messages.RawRows{Format: p.reader.request.Part.Raw, Count: frame.Rows, Data: frame.Data(), Buffer: frame}
	p.emitted = p.idly(func() error {
		return p.out.Emit(ctx, messages.Batch{Stream: p.reader.stream, Version: 1, Rows: rows})
	})
	p.rows += rows.Count
	return p.emitted
}
