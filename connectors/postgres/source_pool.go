package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/connectors/postgres/internal/wire"
	"rapidbyte.io/node/messages"
)

// pool keeps the idle connections of one snapshot: a stream costs no connection of its
// own, only a task that runs does. The source's lock guards it.
type pool struct {
	idle    []*wire.Conn
	readers int  // that are open
	ended   bool // nothing is kept any more
	timer   *time.Timer
}

// idleMax is how long connections wait for another reader. A scan that is closed closes
// its own at once; this is for the nodes that did not make it.
const idleMax = 20 * time.Second

// lease counts a reader of the snapshot in.
func (s *Source) lease(token string) *pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pools[token]
	if p == nil {
		p = &pool{}
		s.pools[token] = p
	}
	p.readers++
	return p
}

// take returns an idle connection, nil if there is none.
func (s *Source) take(p *pool) *wire.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	last := len(p.idle) - 1
	c := p.idle[last]
	p.idle = p.idle[:last]
	return c
}

// release counts a reader out and keeps its connection if another one can use it. c may
// be nil.
func (s *Source) release(token string, p *pool, c *wire.Conn) {
	var closing []*wire.Conn
	s.mu.Lock()
	p.readers--
	switch {
	case c == nil:
	case p.ended || c.Broken() || c.TxStatus() != 'T':
		closing = append(closing, c)
	default:
		p.idle = append(p.idle, c)
	}
	if p.readers == 0 && !p.ended {
		if p.timer == nil {
			p.timer = time.AfterFunc(idleMax, func() { s.expire(token, p) })
		} else {
			p.timer.Reset(idleMax)
		}
	}
	s.mu.Unlock()
	closeAll(closing)
}

// expire forgets a snapshot that nobody has read for a while.
func (s *Source) expire(token string, p *pool) {
	s.mu.Lock()
	var closing []*wire.Conn
	if p.readers == 0 && !p.ended {
		closing = s.end(token, p)
	}
	s.mu.Unlock()
	closeAll(closing)
}

// drop forgets the snapshot of a scan that is closed.
func (s *Source) drop(token string) {
	s.mu.Lock()
	var closing []*wire.Conn
	if p := s.pools[token]; p != nil {
		closing = s.end(token, p)
	}
	s.mu.Unlock()
	closeAll(closing)
}

// end takes the idle connections from p, which keeps none from now on.
func (s *Source) end(token string, p *pool) []*wire.Conn {
	p.ended = true
	if p.timer != nil {
		p.timer.Stop()
	}
	if s.pools[token] == p {
		delete(s.pools, token)
	}
	idle := p.idle
	p.idle = nil
	return idle
}

func closeAll(conns []*wire.Conn) {
	for _, c := range conns {
		_ = c.Close() // it has only read
	}
}

// connect returns a connection whose transaction sees the snapshot of a scan.
func (s *Source) connect(ctx context.Context, token string, p *pool) (*wire.Conn, error) {
	if c := s.take(p); c != nil {
		return c, nil
	}
	snapshot, application, ok := strings.Cut(token, " ")
	if !ok {
		return nil, sourceError("open the part", connectors.KindInternal, messages.CodeInternal, fmt.Errorf("the scan %q is not one of a PostgreSQL source", token))
	}
	c, err := s.dial.named(application).data(ctx)
	if err != nil {
		return nil, err
	}
	begin := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
	if c.Parameter("server_encoding") == "SQL_ASCII" { // it checks nothing; the decoder names row and column
		begin = "SET client_encoding = 'SQL_ASCII'; " + begin
	}
	vigil := s.dial.attendData(c)
	if _, err = c.Exec(ctx, begin); err == nil {
		_, err = c.Exec(ctx, "SET TRANSACTION SNAPSHOT "+query.Literal(snapshot))
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (pg.Code == "22023" || pg.Code == "42704" || pg.Code == "55000") {
			err = sourceError("join the snapshot", connectors.KindScanLost, messages.CodeSource, err)
		}
	}
	if err = vigil.stop(err); err != nil {
		_ = c.Close() // it was never used
		return nil, err
	}
	return c, nil
}
