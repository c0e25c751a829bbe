package pgtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Limits of what a server may take on a busy machine.
const (
	startMax = 90 * time.Second
	stopMax  = 90 * time.Second
	pollEach = 10 * time.Millisecond
)

// Server is a PostgreSQL server of a test.
type Server struct {
	url      *url.URL // of a superuser; its path is a database
	host     string
	port     int
	bin      installation
	external bool // somebody else's: it cannot be stopped

	dir  string // folder of the cluster, the socket and the log
	who  *syscall.Credential
	dog  *watchdog
	pid  int // 0 while stopped
	from int // bytes of the log before the last start
}

// start makes a cluster with settings, and a server on it.
func start(settings []string) (*Server, error) {
	bin, err := findInstallation()
	if err != nil {
		return nil, err
	}
	who, err := account()
	if err != nil {
		return nil, err
	}
	dir, err := newFolder(who)
	if err != nil {
		return nil, err
	}
	s := &Server{host: dir, bin: bin, dir: dir, who: who}
	if s.dog, err = newWatchdog(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := s.create(settings); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

func (s *Server) create(settings []string) error {
	if err := newCluster(s.bin, s.dir, s.Data(), s.who); err != nil {
		return err
	}
	var err error
	for range 10 { // somebody else may take the port before we do
		if s.port, err = freePort(); err != nil {
			return err
		}
		s.url = &url.URL{Scheme: "postgres", User: url.User(superuser), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/postgres"}
		if err = s.configure(settings); err != nil {
			return err
		}
		if err = s.run(); err == nil || !strings.Contains(err.Error(), "could not create any TCP/IP sockets") {
			return err
		}
	}
	return err
}

// freePort returns a port below those that the kernel gives to clients, so that a
// server which is started again finds it free.
func freePort() (int, error) {
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port found")
}

// configure writes the settings of a test behind ours, so that they win.
func (s *Server) configure(settings []string) error {
	all := []string{
		"listen_addresses=127.0.0.1", fmt.Sprintf("port=%d", s.port), "unix_socket_directories=" + s.dir,
		"shared_buffers=64MB", "log_line_prefix=%m [%p] %q%u@%d ", "timezone=UTC", "log_timezone=UTC",
	}
	var b strings.Builder
	for _, setting := range append(all, settings...) {
		name, value, ok := strings.Cut(setting, "=")
		if !ok {
			return fmt.Errorf("setting %q is not name=value", setting)
		}
		fmt.Fprintf(&b, "%s = '%s'\n", strings.TrimSpace(name), strings.ReplaceAll(value, "'", "''"))
	}
	return os.WriteFile(filepath.Join(s.Data(), "postgresql.auto.conf"), []byte(b.String()), 0o600)
}

// run starts the server and waits until it takes connections.
func (s *Server) run() error {
	s.from = len(s.log())
	out, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := command(s.dir, s.who, filepath.Join(string(s.bin), "postgres"), "-D", s.Data())
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	s.pid = cmd.Process.Pid
	if err := s.dog.guard(s.pid); err != nil {
		return err
	}
	if err := cmd.Process.Release(); err != nil {
		return err
	}
	return s.ready()
}

func (s *Server) ready() error {
	var last error
	done := poll(startMax, func() bool {
		if s.reaped() {
			last = errors.New("the server has ended")
			return true
		}
		ctx, cancel := context.WithTimeout(context.Background(), startMax)
		defer cancel()
		var conn *conn
		if conn, last = s.connect(ctx, "postgres"); last != nil {
			return false
		}
		last = conn.close(ctx)
		return true
	})
	if last != nil {
		return fmt.Errorf("start the server: %w\n%s", last, s.log()[s.from:])
	}
	if !done {
		return fmt.Errorf("the server is not ready after %s\n%s", startMax, s.log()[s.from:])
	}
	return nil
}

// signal ends the server and waits until it is gone.
func (s *Server) signal(sig syscall.Signal) error {
	if s.pid == 0 {
		return nil
	}
	if err := syscall.Kill(s.pid, sig); err != nil {
		return fmt.Errorf("signal the server: %w", err)
	}
	if !poll(stopMax, s.reaped) {
		return fmt.Errorf("the server is still there %s after signal %s", stopMax, sig)
	}
	return nil
}

// reaped reports whether the process of the server has ended, and forgets it.
func (s *Server) reaped() bool {
	if s.pid == 0 {
		return true
	}
	pid, err := syscall.Wait4(s.pid, nil, syscall.WNOHANG, nil)
	if pid == 0 && (err == nil || errors.Is(err, syscall.EINTR)) {
		return false
	}
	s.pid = 0
	_ = s.dog.guard(0) // the folder goes with the test anyway
	return true
}

// remove stops the server, without ceremony, and deletes its folder.
func (s *Server) remove() {
	if err := s.signal(syscall.SIGQUIT); err != nil {
		_ = s.signal(syscall.SIGKILL) // the watchdog does the rest
	}
	s.dog.finish()
}

// children returns the processes of the server but the first.
func (s *Server) children() []int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.pid, s.pid))
	if err != nil {
		return nil // they end by themselves when they notice, only later
	}
	var out []int
	for word := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "log") }

func (s *Server) log() string {
	text, _ := os.ReadFile(s.logPath()) // absent before the first start
	return string(text)
}

// poll calls f until it is true or the time is up.
func poll(most time.Duration, f func() bool) bool {
	ticker := time.NewTicker(pollEach)
	defer ticker.Stop()
	for end := time.Now().Add(most); !f(); <-ticker.C {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
