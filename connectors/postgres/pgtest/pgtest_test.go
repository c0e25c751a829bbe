package pgtest

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// childEnv makes the test binary a process that starts a server and waits.
const childEnv = "PGTEST_CHILD"

func TestMain(m *testing.M) { Main(m) }

func TestPGSharedServesDatabases(t *testing.T) {
	s := Shared(t)
	require.Same(t, s, Shared(t))
	a, b := s.Database(t), s.Database(t)
	require.NotEqual(t, a, b)
	s.Exec(t, a, "CREATE TABLE t (x int, y text); INSERT INTO t VALUES (1, NULL), (2, 'é')")
	require.Equal(t, [][]string{{"1", `\N`}, {"2", "é"}}, s.Query(t, a, "SELECT * FROM t ORDER BY x"))
	require.Empty(t, s.Query(t, b, "SELECT * FROM pg_class WHERE relname = 't'"))
	s.Psql(t, b, strings.NewReader("CREATE TABLE t (x int);\nCOPY t FROM stdin;\n1\n2\n\\.\n"))
	require.Equal(t, [][]string{{"2"}}, s.Query(t, b, "SELECT count(*) FROM t"))
}

func TestPGDatabaseLikeTakesOptions(t *testing.T) {
	s := Shared(t)
	db := s.DatabaseLike(t, "template0", "ENCODING 'SQL_ASCII' LOCALE 'C'")
	require.Equal(t, [][]string{{"SQL_ASCII"}}, s.Query(t, db, "SHOW server_encoding"))
}

func TestPGServerIsControlled(t *testing.T) {
	s := Start(t, "max_connections=17", "fsync=off")
	db := s.Database(t)
	require.Equal(t, [][]string{{"17"}}, s.Query(t, db, "SHOW max_connections"))
	s.Exec(t, db, "CREATE TABLE t (x int)")
	for i, stop := range []func(T){s.Stop, s.Immediate, s.Kill9, func(T) {}} {
		stop(t)
		s.Restart(t)
		s.Exec(t, db, "INSERT INTO t VALUES (1)")
		require.Equal(t, [][]string{{fmt.Sprint(i + 1)}}, s.Query(t, db, "SELECT count(*) FROM t"))
	}
	require.True(t, s.LogContains(t, "automatic recovery in progress"))
}

// TestPGServersDieWithTheProcess kills the process that has started a server.
func TestPGServersDieWithTheProcess(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		s := Start(t)
		fmt.Printf("started %d %s\n", s.PID(), s.Host())
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var pid int
	var dir string
	_, err = fmt.Fscanf(out, "started %d %s\n", &pid, &dir)
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	require.True(t, poll(startMax, func() bool {
		_, err := os.Stat(dir)
		return os.IsNotExist(err) && gone(pid)
	}), "%s, process %d", dir, pid)
}

// gone reports whether a process has ended, buried or not.
func gone(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return syscall.Kill(pid, 0) != nil || err == nil && strings.Contains(string(stat), ") Z ")
}

func TestFreePortIsBelowThoseOfClients(t *testing.T) {
	port, err := freePort()
	require.NoError(t, err)
	require.Less(t, port, 32768)
}

// recorder is a test that notes failures instead of failing.
type recorder struct {
	T
	said []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}
func (r *recorder) FailNow() { panic(r) }

func TestPGAnotherServerStandsInForShared(t *testing.T) {
	s, err := external(Shared(t).URL("postgres"))
	require.NoError(t, err)
	db := s.Database(t)
	require.Equal(t, [][]string{{db}}, s.Query(t, db, "SELECT current_database()"))
	require.Equal(t, Shared(t).Port(), s.Port())
	r := &recorder{T: t}
	require.Panics(t, func() { s.Stop(r) })
	require.Contains(t, r.said[0], "from Start")
	require.Panics(t, func() { s.Exec(r, db, "SELECT 1/0") })
	require.Contains(t, r.said[1], "division by zero")
	_, err = external("host=x")
	require.Error(t, err)
}
