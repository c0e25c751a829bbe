package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/wire"
)

// line is the network connection of a control connection. It remembers why it was lost:
// pgx reads ahead, drops that error, and says at the next read that the connection is
// closed.
type line struct {
	net.Conn
	who   wire.Backend // set by the login
	moved atomic.Int64 // reads and writes that were done

	mu    sync.Mutex
	first error
}

// dialLine is a pgconn.DialFunc.
func (d *dialer) dialLine(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.netDialer().DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &line{Conn: c}, nil
}

// Read implements net.Conn.
func (l *line) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	l.moved.Add(1)
	l.note("read", err)
	return n, err
}

// Write implements net.Conn.
func (l *line) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
	l.moved.Add(1)
	l.note("write", err)
	return n, err
}

// note keeps the first error that is not of our own making.
func (l *line) note(op string, err error) {
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = &wire.LostError{Op: op, Err: err}
	}
}

// lost returns why the connection was lost; nil if it was not.
func (l *line) lost() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

// why says why the connection behind err was lost, where pgx knows only that it is closed.
func (l *line) why(err error) error {
	if lost := l.lost(); lost != nil && errors.Is(err, pgconn.ErrConnClosed) {
		return because(err, lost)
	}
	return err
}

// because puts the first cause in the place of err.
func because(err, first error) error {
	if e, ok := errors.AsType[*connectors.Error](err); ok { // it is placed already
		out := *e
		out.Err = first
		return &out
	}
	return first
}

// lineOf returns the line of a control connection.
func lineOf(conn *pgx.Conn) *line {
	raw := conn.PgConn().Conn()
	if t, ok := raw.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	if q, ok := raw.(*asking); ok {
		raw = q.Conn
	}
	l, ok := raw.(*line)
	if !ok { // it was not made by dialLine: nothing is known of it
		return &line{Conn: raw}
	}
	return l
}

// tend runs do with a control connection, and watches it. An error says why the connection
// was lost.
func (d *dialer) tend(conn *pgx.Conn, do func() error) error {
	l := lineOf(conn)
	v := d.attend(l.who, l.moved.Load, func(error) { _ = l.Close() })
	return l.why(v.stop(do()))
}
