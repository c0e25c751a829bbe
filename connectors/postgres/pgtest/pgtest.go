package pgtest

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// T is what this package needs of a test; *testing.T and conntest.T have it.
type T interface {
	Helper()
	Errorf(format string, args ...any)
	FailNow()
	Cleanup(f func())
}

// Main runs the tests of a package, stops what was started and fails when
// goroutines are left. It does not return.
func Main(m *testing.M, options ...goleak.Option) {
	code := m.Run()
	if s := shared.server; s != nil && !s.external {
		s.remove()
	}
	finishAll()
	if code == 0 {
		if err := goleak.Find(options...); err != nil {
			fmt.Fprintf(os.Stderr, "goroutines are left: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

// shared is the server of this process.
var shared struct {
	sync.Mutex
	server *Server
	err    error
}

// Shared returns the server of this test process. It does not survive a crash of
// the machine, and is fast for that.
func Shared(t T) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		if text := os.Getenv("RB_TEST_POSTGRES"); text != "" {
			shared.server, shared.err = external(text)
		} else {
			shared.server, shared.err = start([]string{"fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=200"})
		}
	}
	check(t, shared.err)
	return shared.server
}

// Start returns a server of its own, with the durability of a real one. A setting
// is "name=value".
func Start(t T, settings ...string) *Server {
	t.Helper()
	s, err := start(settings)
	check(t, err)
	t.Cleanup(s.remove)
	return s
}

// external describes the server that RB_TEST_POSTGRES names.
func external(text string) (*Server, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil, fmt.Errorf("RB_TEST_POSTGRES is not a URL with a host")
	}
	s := &Server{url: u, host: u.Hostname(), port: 5432, external: true}
	if u.Port() != "" {
		s.port, err = strconv.Atoi(u.Port())
	}
	s.bin, _ = findInstallation() // for psql only
	return s, err
}

// databases numbers the databases of this process.
var databases atomic.Int64

// Database creates an empty database; it is dropped in Cleanup.
func (s *Server) Database(t T) string {
	t.Helper()
	return s.DatabaseLike(t, "", "")
}

// DatabaseLike creates a database from a template, with options such as ENCODING
// 'SQL_ASCII'; both may be empty.
func (s *Server) DatabaseLike(t T, template, options string) string {
	t.Helper()
	name := fmt.Sprintf("t%d_%d", os.Getpid(), databases.Add(1))
	sql := "CREATE DATABASE " + name
	if template != "" {
		sql += " TEMPLATE " + template
	}
	s.Exec(t, "postgres", sql+" "+options)
	t.Cleanup(func() {
		t.Helper()
		if s.external || s.pid != 0 { // a stopped server takes it along
			s.Exec(t, "postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		}
	})
	return name
}

// Host is the folder of the server's unix socket.
func (s *Server) Host() string { return s.host }

// Port is where the server listens, at 127.0.0.1 and in the folder of the socket.
func (s *Server) Port() int { return s.port }

// User is a superuser that needs no password.
func (s *Server) User() string { return s.url.User.Username() }

// URL is that of a database, over TCP.
func (s *Server) URL(db string) string {
	u := *s.url
	u.Path = "/" + db
	return u.String()
}

// Data is the folder of the cluster, with pg_hba.conf.
func (s *Server) Data() string { return filepath.Join(s.dir, "data") }

// File writes a file into the cluster, owned by the server, for its eyes only.
func (s *Server) File(t T, name, content string) {
	t.Helper()
	s.ours(t)
	path := filepath.Join(s.Data(), name)
	check(t, os.WriteFile(path, []byte(content), 0o600))
	check(t, os.Chmod(path, 0o600))
	if s.who != nil {
		check(t, os.Chown(path, int(s.who.Uid), int(s.who.Gid)))
	}
}

// PID is the process of the server; 0 while it is stopped.
func (s *Server) PID() int { return s.pid }

// Immediate shuts the server down without a checkpoint, as pg_ctl stop -m immediate.
func (s *Server) Immediate(t T) { t.Helper(); s.ours(t); check(t, s.signal(syscall.SIGQUIT)) }

// Stop shuts the server down; connections are closed by it.
func (s *Server) Stop(t T) { t.Helper(); s.ours(t); check(t, s.signal(syscall.SIGINT)) }

// Kill9 ends every process of the server at once.
func (s *Server) Kill9(t T) {
	t.Helper()
	s.ours(t)
	children := s.children()
	check(t, s.signal(syscall.SIGKILL))
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended already
	}
}

// Restart starts the server again, after a stop if it runs, and waits until it
// accepts connections.
func (s *Server) Restart(t T) {
	t.Helper()
	s.ours(t)
	check(t, s.signal(syscall.SIGINT))
	var err error
	poll(startMax, func() bool { // what a killed server left may live a moment longer
		err = s.run()
		return err == nil || !strings.Contains(err.Error(), "is still in use") && !strings.Contains(err.Error(), "could not create any TCP/IP sockets")
	})
	check(t, err)
}

// Log returns what the server has logged.
func (s *Server) Log(t T) string {
	t.Helper()
	s.ours(t)
	return s.log()
}

// LogContains waits a while for a text in the log of the server.
func (s *Server) LogContains(t T, text string) bool {
	t.Helper()
	s.ours(t)
	return poll(10*time.Second, func() bool { return strings.Contains(s.log(), text) })
}

func (s *Server) ours(t T) {
	t.Helper()
	if s.external {
		check(t, fmt.Errorf("this test controls its server: it takes one from Start, not from Shared"))
	}
}

// check fails the test if there is an error.
func check(t T, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%v", err)
		t.FailNow()
	}
}
