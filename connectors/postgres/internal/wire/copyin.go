package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Headroom is the number of bytes before a payload that Send overwrites with the
// header of the message.
const Headroom = headerSize

// pieceMax is how much is written at a time: on a slow way a write takes long, and who
// watches must see that it goes on.
const pieceMax = 256 << 10

// CopyIn is a COPY .. FROM STDIN that is under way. It belongs to one goroutine. It
// ends with Done, with Abort, or with an error of Send.
type CopyIn struct {
	c     *Conn
	ended bool // for the caller: the connection is free again, or gone

	asked  atomic.Bool   // we have said that no more follows
	failed atomic.Bool   // the server has refused or is gone; done follows
	done   chan struct{} // closed when the reading goroutine has ended
	rows   int64         // valid after done
	err    error         // valid after done; first cause
}

// CopyIn starts COPY .. FROM STDIN.
func (c *Conn) CopyIn(ctx context.Context, sql string) (*CopyIn, error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	err := c.watched(ctx, "start copy in", func() error {
		if err := c.query(sql); err != nil {
			return err
		}
		return c.expectCopy('G', "the start of a copy in")
	})
	if err != nil {
		c.end()
		return nil, err
	}
	in := &CopyIn{c: c, done: make(chan struct{})}
	if !c.spawn(in.listen) {
		c.end()
		return nil, ErrClosed
	}
	return in, nil
}

// listen reads what the server says until it is ready again or gone.
func (in *CopyIn) listen() {
	defer close(in.done)
	in.rows, in.err = in.answers()
	in.failed.Store(in.err != nil)
}

func (in *CopyIn) answers() (rows int64, first error) {
	c := in.c
	complete := false
	for {
		typ, body, err := c.next()
		if err != nil {
			return rows, both(first, err)
		}
		switch typ {
		case 'C':
			var tag string
			tag, err = decodeTag(body)
			rows, complete = rowsOf(tag), true
		case 'E':
			_, ended, refusal := c.refused(body)
			if first == nil {
				first = refusal
			}
			in.failed.Store(true)
			if ended {
				return rows, first
			}
		case 'Z':
			if first != nil || complete && in.asked.Load() {
				return rows, first
			}
			err = unexpected(typ, "a copy in")
		default:
			err = unexpected(typ, "a copy in")
		}
		if err != nil {
			in.failed.Store(true)
			return rows, both(first, c.fail(err))
		}
	}
}

// Send sends buf[Headroom:] as one message, without copying it. It returns the
// error of the server when that has failed already; the copy has then ended.
func (in *CopyIn) Send(ctx context.Context, buf []byte) error {
	switch {
	case in.ended:
		return in.result()
	case len(buf) < Headroom:
		return errors.New("the buffer has no room for the header")
	case len(buf) > messageMax:
		return errLong
	case len(buf) == Headroom:
		return nil
	}
	return in.step(ctx, func() error {
		if in.failed.Load() {
			return in.wait()
		}
		buf[0] = 'd'
		binary.BigEndian.PutUint32(buf[1:], uint32(len(buf)-1))
		return in.write(buf)
	})
}

// Done ends the copy and returns the number of rows that the server has taken.
func (in *CopyIn) Done(ctx context.Context) (rows int64, err error) {
	if in.ended {
		return 0, in.result()
	}
	err = in.step(ctx, func() error {
		if !in.failed.Load() {
			in.asked.Store(true)
			if err := in.write(appendEmpty(in.c.out[:0], 'c')); err != nil {
				return err
			}
		}
		return in.wait()
	})
	if err != nil {
		return 0, err
	}
	return in.rows, nil
}

// Abort makes the server forget the copy. It returns nil when the server has
// confirmed that; the connection is then usable, its transaction failed. After
// another error the connection can only be closed.
func (in *CopyIn) Abort(ctx context.Context, reason string) error {
	if in.ended {
		return in.c.whyNot()
	}
	message, err := appendText(nil, 'f', strings.ReplaceAll(reason, "\x00", ""))
	if err != nil {
		return err
	}
	err = in.step(ctx, func() error {
		if !in.failed.Load() {
			in.asked.Store(true)
			if err := in.write(message); err != nil {
				return err
			}
		}
		return in.wait()
	})
	if err == nil {
		return errors.New("the server has completed a copy that was given up")
	}
	if _, ok := errors.AsType[*pgconn.PgError](err); ok && !in.c.Broken() {
		return nil // refused, now or before
	}
	return err
}

// step runs f while ctx lasts and ends the copy if there is nothing more to come.
func (in *CopyIn) step(ctx context.Context, f func() error) error {
	err := in.c.watched(ctx, "copy in", f)
	if in.c.Broken() {
		<-in.done // there is nothing to read any more
	}
	select {
	case <-in.done:
		in.ended = true
		in.c.end()
	default:
	}
	return err
}

// wait returns the outcome when the server is ready again or gone.
func (in *CopyIn) wait() error {
	<-in.done
	return in.err
}

// write sends a message; when that fails, what the server said counts more.
func (in *CopyIn) write(b []byte) (err error) {
	for len(b) > 0 && err == nil {
		piece := b[:min(len(b), pieceMax)]
		_, err = in.c.raw.Write(piece)
		in.c.moved.Add(1)
		b = b[len(piece):]
	}
	if err == nil {
		return nil
	}
	in.c.readUntil(time.Now().Add(lastWordsMax))
	<-in.done
	if _, ok := errors.AsType[*pgconn.PgError](in.err); ok {
		return in.c.fail(in.err)
	}
	if in.err != nil && errors.Is(err, net.ErrClosed) {
		return in.c.fail(in.err) // who listens has closed it, and knows why
	}
	return in.c.fail(&LostError{Op: "write", Err: err})
}

// result is what a copy that has ended says to a further call.
func (in *CopyIn) result() error {
	if in.err != nil {
		return fmt.Errorf("%w: %w", ErrEnded, in.err)
	}
	return ErrEnded
}
