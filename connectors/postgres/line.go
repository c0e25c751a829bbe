package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"

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
	l.note("read", err)
	return n, err
}

// Write implements net.Conn.
func (l *line) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
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

// lineOf returns the line of a control connection; nil if it has none.
func lineOf(conn *pgx.Conn) *line {
	raw := conn.PgConn().Conn()
	if t, ok := raw.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	l, _ := raw.(*line)
	return l
}

// tend runs do with a control connection. Where pgx knows only that the connection is
// closed, the error says why.
func (d *dialer) tend(conn *pgx.Conn, do func() error) error {
	err := do()
	if l := lineOf(conn); l != nil && errors.Is(err, pgconn.ErrConnClosed) && l.lost() != nil {
		if e, ok := errors.AsType[*connectors.Error](err); ok { // it is placed already
			out := *e
			out.Err = l.lost()
			return &out
		}
		return l.lost()
	}
	return err
}
