package postgres

import (
	"bytes"
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// tlsRequest is what a client sends that asks for TLS.
var tlsRequest = []byte{0, 0, 0, 8, 4, 210, 22, 47}

// asker dials for one login. A server that is asked for TLS and has none goes on without, on
// the same connection; pgconn closes it and makes another one, which costs the server a
// process more. asker keeps it and gives it to pgconn when that comes back.
type asker struct {
	dial pgconn.DialFunc

	mu      sync.Mutex
	refused map[string]net.Conn // by network and address; nil when the login is over
}

// newAsker returns nil if the login does not go on without TLS.
func newAsker(cfg *pgx.ConnConfig) *asker {
	if cfg.TLSConfig == nil || !slices.ContainsFunc(cfg.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.TLSConfig == nil }) {
		return nil
	}
	a := &asker{dial: cfg.DialFunc, refused: map[string]net.Conn{}}
	cfg.DialFunc = a.dialContext
	return a
}

func (a *asker) dialContext(ctx context.Context, network, address string) (net.Conn, error) {
	at := network + " " + address
	a.mu.Lock()
	c, over := a.refused[at], a.refused == nil
	delete(a.refused, at)
	a.mu.Unlock()
	if c != nil {
		return c, c.SetDeadline(time.Time{})
	}
	c, err := a.dial(ctx, network, address)
	if err != nil || over {
		return c, err
	}
	return &asking{Conn: c, asker: a, at: at}, nil
}

// over ends the login: what is left is closed, and later dials are as they are.
func (a *asker) over() {
	if a == nil {
		return
	}
	a.mu.Lock()
	left := a.refused
	a.refused = nil
	a.mu.Unlock()
	for _, c := range left {
		_ = c.Close() // it was never used
	}
}

// asking is a connection until it is known whether the server has TLS.
type asking struct {
	net.Conn
	asker *asker
	at    string
	state askState // of one goroutine: the login's
}

type askState uint8

const (
	askNew askState = iota
	askSent
	askRefused
	askOver
)

// Write implements net.Conn.
func (c *asking) Write(b []byte) (int, error) {
	switch {
	case c.state == askOver: // who reads beside us must find nothing written
	case c.state == askNew && bytes.Equal(b, tlsRequest):
		c.state = askSent
	default:
		c.state = askOver
	}
	return c.Conn.Write(b)
}

// Read implements net.Conn.
func (c *asking) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	switch {
	case c.state == askOver:
	case c.state == askSent && err == nil && n == 1 && b[0] == 'N':
		c.state = askRefused
	default:
		c.state = askOver
	}
	return n, err
}

// Close implements net.Conn.
func (c *asking) Close() error {
	if c.state == askRefused {
		c.state = askOver
		c.asker.mu.Lock()
		defer c.asker.mu.Unlock()
		if c.asker.refused != nil && c.asker.refused[c.at] == nil {
			c.asker.refused[c.at] = c.Conn
			return nil
		}
	}
	return c.Conn.Close()
}
