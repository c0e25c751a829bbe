package pgtest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Message is a message of the protocol on its way through a Proxy. Body is valid during
// the call, and what is written into it travels on.
type Message struct {
	Link       int  // number of the connection, from 1
	FromServer bool // else from the client
	Type       byte // 0: of a login, which has no type
	Body       []byte
	Before     int64 // bytes of this direction of this connection that were before it
}

// Size is the number of bytes that m is on the wire.
func (m Message) Size() int64 {
	if m.Type == 0 {
		return int64(len(m.Body)) + 4
	}
	return int64(len(m.Body)) + 5
}

// Says reports whether m runs a statement with this text in any case, or is the server's
// tag of one that is complete. A statement that pgx has prepared is known by the name that
// it has from its text.
func (m Message) Says(text string) bool {
	switch {
	case m.FromServer:
		return m.Type == 'C' && bytes.EqualFold(bytes.TrimSuffix(m.Body, []byte{0}), []byte(text))
	case m.Type == 'Q':
		return bytes.EqualFold(bytes.TrimSuffix(m.Body, []byte{0}), []byte(text))
	case m.Type == 'B': // portal, statement
		fields := bytes.SplitN(m.Body, []byte{0}, 3)
		return len(fields) == 3 && (string(fields[1]) == prepared(text) || string(fields[1]) == prepared(strings.ToLower(text)))
	}
	return false
}

// prepared is the name of a prepared statement of pgx.
func prepared(sql string) string {
	digest := sha256.Sum256([]byte(sql))
	return "stmtcache_" + hex.EncodeToString(digest[:24])
}

// Fate is what becomes of a message and its connection.
type Fate struct {
	kind fateKind
	n    int64
}

type fateKind uint8

const (
	fatePass fateKind = iota
	fateReset
	fateSilence
	fateDeaf
)

// The fates. What is cut is reset at both ends, as a firewall or a crashed host does.
var (
	Pass    = Fate{}
	Silence = Fate{kind: fateSilence} // this and all that follows is taken and goes nowhere, either way
	Deaf    = Fate{kind: fateDeaf}    // the client's bytes are not even acknowledged any more, and nothing reaches it
)

// ResetAt lets the first n bytes of a message through and resets the connection.
func ResetAt(n int64) Fate { return Fate{kind: fateReset, n: n} }

// Shape is how bytes travel through a Proxy. Zero is as fast as they can.
type Shape struct {
	Delay time.Duration // of each byte, each way
	Rate  int           // bytes per second of each way of each connection
	Slice int           // bytes of a packet
}

// Proxy stands between clients and a server, understands the protocol, and does what
// networks do.
type Proxy struct {
	listener net.Listener
	server   string
	wg       sync.WaitGroup

	mu     sync.Mutex
	judge  func(Message) Fate
	shape  Shape
	links  map[*link]bool
	number int
	closed bool
}

// NewProxy stands before the server that listens on a port of this machine, until the test
// has ended.
func NewProxy(t T, port int) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	p := &Proxy{listener: l, server: fmt.Sprintf("127.0.0.1:%d", port), links: map[*link]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Port is where the proxy listens, at 127.0.0.1.
func (p *Proxy) Port() int {
	a, _ := p.listener.Addr().(*net.TCPAddr)
	return a.Port
}

// Judge decides about each message from now on; nil lets all pass. It is called by one
// goroutine at a time.
func (p *Proxy) Judge(f func(Message) Fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.judge = f
}

// Shape changes how bytes travel from now on.
func (p *Proxy) Shape(s Shape) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shape = s
}

func (p *Proxy) shaped() Shape {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shape
}

// ResetAll resets every connection, and returns how many there were.
func (p *Proxy) ResetAll() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.links)
	for l := range p.links {
		l.reset()
	}
	return n
}

// Links is the number of connections that are open.
func (p *Proxy) Links() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.ResetAll()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		_ = client.Close() // nobody is there: as a forwarder says it
		return
	}
	p.mu.Lock()
	p.number++
	l := &link{proxy: p, number: p.number, client: client, server: server, done: make(chan struct{})}
	p.links[l] = true
	closed := p.closed
	p.mu.Unlock()
	if closed {
		l.reset()
	}
	var both sync.WaitGroup
	both.Go(func() { l.carry(client, server, false) })
	both.Go(func() { l.carry(server, client, true) })
	both.Wait()
	l.end()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

func (p *Proxy) fate(m Message) Fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.judge == nil {
		return Pass
	}
	return p.judge(m)
}

// link is one connection.
type link struct {
	proxy          *Proxy
	number         int
	client, server net.Conn
	asked          atomic.Int32 // answers of one byte that the server owes
	mute           atomic.Bool
	once           sync.Once
	done           chan struct{} // closed at the end
}

// reset ends both connections at once.
func (l *link) reset() {
	for _, c := range []net.Conn{l.client, l.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it may be closed
		}
	}
	l.end()
}

func (l *link) end() {
	l.once.Do(func() {
		close(l.done)
		_ = l.client.Close() // errors of a connection that is over
		_ = l.server.Close()
	})
}

// parcel is some bytes that are due at the other end at a time.
type parcel struct {
	bytes []byte
	due   time.Time
}

// inFlight is how many parcels of at most 64 KiB, or of one message, are on their way at a
// time.
const inFlight = 16

// carry moves messages from one end to the other.
func (l *link) carry(from, to net.Conn, fromServer bool) {
	way := make(chan parcel, inFlight)
	var sending sync.WaitGroup
	sending.Go(func() { l.send(to, way) })
	l.take(from, fromServer, way)
	close(way)
	sending.Wait()
	if tcp, ok := to.(*net.TCPConn); ok && !l.mute.Load() {
		_ = tcp.CloseWrite() // the end travels too
	}
}

// take reads messages and decides about them.
func (l *link) take(from net.Conn, fromServer bool, way chan<- parcel) {
	in := bufio.NewReaderSize(from, 64<<10)
	var before int64
	var out []byte
	login := !fromServer
	flush := func() {
		if len(out) > 0 && !l.mute.Load() {
			select {
			case way <- parcel{out, time.Now().Add(l.proxy.shaped().Delay)}:
			case <-l.done:
			}
		}
		out = nil
	}
	for {
		raw, m, err := l.read(in, fromServer, login)
		if err != nil {
			flush()
			return
		}
		m.Link, m.FromServer, m.Before = l.number, fromServer, before
		login = login && (m.Type != 0 || !l.begun(m.Body))
		before += int64(len(raw))
		switch f := l.proxy.fate(m); f.kind {
		case fatePass:
			out = append(out, raw...)
		case fateReset:
			out = append(out, raw[:min(f.n, int64(len(raw)))]...)
			l.last(fromServer, out)
			return
		case fateDeaf, fateSilence:
			flush()
			if f.kind == fateDeaf {
				deafen(l.client)
			}
			l.mute.Store(true)
		}
		if in.Buffered() == 0 || len(out) >= 64<<10 {
			flush()
		}
	}
}

// last sends what comes before a reset.
func (l *link) last(fromServer bool, b []byte) {
	to := l.server
	if fromServer {
		to = l.client
	}
	_, _ = to.Write(b) // the end follows in any case
	l.reset()
}

// begun reports whether a message of the login is the one after which messages have types.
func (l *link) begun(body []byte) bool {
	if len(body) < 4 {
		return true
	}
	switch binary.BigEndian.Uint32(body) {
	case 80877103, 80877104: // encryption is asked for: one byte answers
		l.asked.Add(1)
		return false
	}
	return true
}

// read returns the next message, with all of its bytes.
func (l *link) read(in *bufio.Reader, fromServer, login bool) (raw []byte, m Message, err error) {
	if fromServer && l.asked.Load() > 0 {
		l.asked.Add(-1)
		b, err := in.ReadByte()
		return []byte{b}, Message{Type: 1}, err
	}
	head := 5
	if login {
		head = 4
	}
	raw = make([]byte, head)
	if fromServer { // what is asked for while we wait is answered without a length
		if _, err = in.Peek(1); err != nil {
			return nil, m, err
		}
		if l.asked.Load() > 0 {
			return l.read(in, fromServer, login)
		}
	}
	if _, err = io.ReadFull(in, raw); err != nil {
		return nil, m, err
	}
	if !login {
		m.Type = raw[0]
	}
	size := int(binary.BigEndian.Uint32(raw[head-4:])) - 4
	if size < 0 || size > 1<<30 {
		return nil, m, errors.New("this is not the protocol")
	}
	raw = append(raw, make([]byte, size)...)
	_, err = io.ReadFull(in, raw[head:])
	m.Body = raw[head:]
	return raw, m, err
}

// send writes parcels when they are due, in the shape of the link.
func (l *link) send(to net.Conn, way <-chan parcel) {
	for p := range way {
		if !l.pause(time.Until(p.due)) {
			return
		}
		for len(p.bytes) > 0 {
			n, shape := len(p.bytes), l.proxy.shaped()
			if shape.Slice > 0 {
				n = min(n, shape.Slice)
			}
			if shape.Rate > 0 {
				n = min(n, max(shape.Rate/50, 1))
				if !l.pause(time.Duration(n) * time.Second / time.Duration(shape.Rate)) {
					return
				}
			}
			if _, err := to.Write(p.bytes[:n]); err != nil {
				l.end()
				return
			}
			p.bytes = p.bytes[n:]
		}
	}
}

// pause waits, unless the link ends.
func (l *link) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.done:
		return false
	}
}
