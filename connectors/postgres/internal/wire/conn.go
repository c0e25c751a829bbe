package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	loginMessageMax = 1 << 20         // bytes of a message before we are logged in
	cancelMax       = 2 * time.Second // time to ask for a cancellation
	lastWordsMax    = 2 * time.Second // time to read why a write has failed
	goodbyeMax      = time.Second     // time to say goodbye
)

// longAgo ends reads and writes at once.
var longAgo = time.Unix(1, 0)

// Conn is a connection to a server, logged in.
type Conn struct {
	raw     net.Conn
	pid     uint32
	askStop func(context.Context) error // sends a CancelRequest; nil in tests without a server
	in      *frames                     // owned by the call, or by the goroutine of a copy in
	out     []byte                      // scratch of the call

	backend Backend        // set once, before the connection is shared
	moved   atomic.Int64   // reads and writes that were done
	status  atomic.Uint32  // of the last ReadyForQuery
	inUse   atomic.Bool    // by a call or a copy in
	waiting sync.WaitGroup // goroutines of this connection

	mu          sync.Mutex
	parameters  map[string]string
	goodbye     *pgconn.PgError // the last notice of a server that goes away
	broken      error           // first cause; nil while usable
	interrupted bool            // deadlines stay in the past
	closed      bool
}

// Connect logs in with pgconn (TLS, SCRAM, hosts, .pgpass are its work), takes the
// raw connection over and owns it for ever. It does not change cfg.
func Connect(ctx context.Context, cfg *pgconn.Config) (*Conn, error) {
	cfg = cfg.Copy()
	cfg.MaxProtocolMessageBodyLen = loginMessageMax
	way := &route{dial: cfg.DialFunc}
	cfg.DialFunc = way.dialContext
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	way.known = true
	h, err := pg.Hijack()
	if err != nil {
		return nil, errors.Join(err, pg.Close(ctx))
	}
	c := newConn(h.Conn)
	c.pid, c.parameters, c.askStop = h.PID, h.ParameterStatuses, pg.CancelRequest
	c.status.Store(uint32(h.TxStatus))
	if err := c.drain(h.Frontend); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func newConn(raw net.Conn) *Conn {
	c := &Conn{raw: raw, parameters: make(map[string]string)}
	c.in = newFrames(meter{raw, &c.moved})
	c.status.Store('I')
	return c
}

// drain takes what pgconn has read too much: a server may go away right after
// the login.
func (c *Conn) drain(f *pgproto3.Frontend) error {
	if f.ReadBufferLen() == 0 {
		return nil
	}
	if err := c.raw.SetReadDeadline(time.Now().Add(lastWordsMax)); err != nil {
		return &LostError{Op: "read", Err: err}
	}
	for f.ReadBufferLen() > 0 {
		m, err := f.Receive()
		if err != nil {
			return &LostError{Op: "read", Err: err}
		}
		if e, ok := m.(*pgproto3.ErrorResponse); ok {
			return pgconn.ErrorResponseToPgError(e)
		}
	}
	return c.raw.SetReadDeadline(time.Time{})
}

// route remembers the way that led to the server: a cancellation must reach the
// same one, whatever other hosts there are.
type route struct {
	dial             pgconn.DialFunc
	network, address string
	known            bool
}

func (r *route) dialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if !r.known {
		r.network, r.address = network, address
	}
	return r.dial(ctx, r.network, r.address)
}

// TxStatus is the state of the transaction at the end of the last call: I none, T
// open, E failed.
func (c *Conn) TxStatus() byte { return byte(c.status.Load()) }

// PID is the process of the server that serves us.
func (c *Conn) PID() uint32 { return c.pid }

// Backend is a session as its server knows it. PID may be another than that of the login:
// a pooler stands between then.
type Backend struct {
	PID           int32
	Began, Server string // when the session and its server were started
}

// Introduce says who serves the connection. It comes before any other call.
func (c *Conn) Introduce(b Backend) { c.backend = b }

// Backend returns who was introduced.
func (c *Conn) Backend() Backend { return c.backend }

// Moved is another number when bytes have come or gone.
func (c *Conn) Moved() int64 { return c.moved.Load() }

// Kill ends the connection at once: a call that is under way fails.
func (c *Conn) Kill(cause error) { _ = c.fail(cause) }

// meter counts reads.
type meter struct {
	net.Conn
	moved *atomic.Int64
}

// Read implements io.Reader.
func (m meter) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	m.moved.Add(1)
	return n, err
}

// Parameter is what the server has reported of itself, such as server_version.
func (c *Conn) Parameter(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parameters[name]
}

// Broken reports whether the connection cannot be used any more.
func (c *Conn) Broken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken != nil || c.closed
}

// Close says goodbye if nothing is under way, and closes the connection; a call
// that is under way fails. It waits for the goroutines of the connection.
func (c *Conn) Close() error {
	c.mu.Lock()
	first, usable := !c.closed, c.broken == nil
	c.closed = true
	c.mu.Unlock()
	var err error
	if first && usable {
		if c.inUse.CompareAndSwap(false, true) {
			_ = c.raw.SetWriteDeadline(time.Now().Add(goodbyeMax))
			_, _ = c.raw.Write(appendEmpty(nil, 'X')) // a courtesy: the end of the connection says the same
		}
		err = c.raw.Close()
	}
	c.waiting.Wait()
	return err
}

// begin takes the connection for a call.
func (c *Conn) begin() error {
	if !c.inUse.CompareAndSwap(false, true) {
		if c.Broken() {
			return c.whyNot()
		}
		return ErrBusy
	}
	if err := c.whyNot(); err != nil {
		c.inUse.Store(false)
		return err
	}
	return nil
}

func (c *Conn) end() { c.inUse.Store(false) }

// whyNot says why the connection cannot be used; nil if it can.
func (c *Conn) whyNot() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.broken != nil:
		return fmt.Errorf("the connection cannot be used any more: %w", c.broken)
	case c.closed:
		return ErrClosed
	}
	return nil
}

// watched runs f, which moves bytes for op, until ctx ends. What f knows to have
// happened counts more than that nobody waits for it any longer.
func (c *Conn) watched(ctx context.Context, op string, f func() error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	done := make(chan struct{}) // closed when the interruption is made
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		c.interrupt()
	})
	err := f()
	if stop() {
		return err
	}
	<-done
	_ = c.fail(context.Cause(ctx)) // the cause goes with what f says
	if err != nil {
		return fmt.Errorf("%s: %w: %w", op, context.Cause(ctx), err)
	}
	return nil
}

// interrupt ends reads and writes at once and asks the server to cancel.
func (c *Conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupted = true
	_ = c.raw.SetDeadline(longAgo) // a closed connection has ended them
	if c.closed || c.askStop == nil {
		return
	}
	c.waiting.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cancelMax)
		defer cancel()
		_ = c.askStop(ctx) // as well as it can: the end of the connection follows
	})
}

// spawn starts a goroutine that Close waits for, unless it waits already.
func (c *Conn) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.waiting.Go(f)
	}
	return !c.closed
}

// readUntil limits reads, unless they are ended already.
func (c *Conn) readUntil(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.interrupted {
		_ = c.raw.SetReadDeadline(t) // a closed connection has ended them
	}
}

// fail ends the connection; the first cause is kept. It returns err.
func (c *Conn) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = err
		_ = c.raw.Close() // it is of no use any more
	}
	return err
}

// next returns the next message that belongs to a call. It takes what the server
// may say at any time, and fails the connection when there is nothing more to read.
func (c *Conn) next() (byte, []byte, error) {
	for {
		typ, body, err := c.in.next()
		if err != nil {
			return typ, nil, c.lost(err)
		}
		switch typ {
		case 'd': // by far the most frequent
			return typ, body, nil
		case 'N', 'S', 'A':
			if err := c.aside(typ, body); err != nil {
				return typ, nil, c.fail(err)
			}
		case 'Z':
			if body[0] != 'I' && body[0] != 'T' && body[0] != 'E' {
				return typ, nil, c.fail(&ProtocolError{Type: typ, Why: "unknown transaction status"})
			}
			c.status.Store(uint32(body[0]))
			return typ, body, nil
		default:
			return typ, body, nil
		}
	}
}

// aside takes a message that the server may send at any time.
func (c *Conn) aside(typ byte, body []byte) error {
	switch typ {
	case 'N':
		notice, err := serverError(typ, body)
		if err != nil {
			return err
		}
		if farewell(notice) {
			c.mu.Lock()
			c.goodbye = notice
			c.mu.Unlock()
		}
	case 'S':
		texts, err := decodeTexts(typ, body, 2)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.parameters[texts[0]] = texts[1]
		c.mu.Unlock()
	}
	return nil
}

// lost fails the connection with what the server said last, else with err.
func (c *Conn) lost(err error) error {
	c.mu.Lock()
	goodbye, closed := c.goodbye, c.closed
	c.mu.Unlock()
	switch {
	case goodbye != nil:
		err = goodbye
	case closed:
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return c.fail(err)
}

// refused decodes an ErrorResponse; a fatal one fails the connection.
func (c *Conn) refused(body []byte) (e *pgconn.PgError, ended bool, err error) {
	if e, err = serverError('E', body); err != nil {
		return nil, true, c.fail(err)
	}
	if fatal(e) {
		return e, true, c.fail(e)
	}
	return e, false, e
}

// write sends b. When that fails, what the server has said before is the error.
func (c *Conn) write(b ...[]byte) error {
	buffers := net.Buffers(b)
	_, err := buffers.WriteTo(c.raw)
	c.moved.Add(1)
	if err != nil {
		return c.lastWords(&LostError{Op: "write", Err: err})
	}
	return nil
}

// lastWords reads why the server does not read any more.
func (c *Conn) lastWords(lost error) error {
	c.readUntil(time.Now().Add(lastWordsMax))
	for {
		typ, body, err := c.next()
		if err != nil {
			if _, ok := errors.AsType[*pgconn.PgError](err); ok {
				return err
			}
			return lost
		}
		if typ == 'E' {
			if e, _, _ := c.refused(body); e != nil {
				return c.fail(e)
			}
		}
	}
}
