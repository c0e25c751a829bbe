package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// errAbsent says what to do when there is no PostgreSQL on this machine.
var errAbsent = errors.New("no PostgreSQL found: install postgresql or set RB_TEST_POSTGRES")

// superuser is the role that initdb creates.
const superuser = "postgres"

// installation is the folder of the programs of a PostgreSQL.
type installation string

// findInstallation looks where packages and people put PostgreSQL, newest first.
var findInstallation = sync.OnceValues(func() (installation, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	slices.SortFunc(dirs, func(a, b string) int { return majorOf(b) - majorOf(a) })
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, dir := range dirs {
		_, server := exec.LookPath(filepath.Join(dir, "postgres"))
		_, init := exec.LookPath(filepath.Join(dir, "initdb"))
		if server == nil && init == nil {
			return installation(dir), nil
		}
	}
	return "", errAbsent
})

func majorOf(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // an odd name sorts last
	return n
}

// account is who runs the server; nil is who runs the test.
func account() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil //nolint:nilnil // nobody else is needed
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

// command prepares a program to run in dir as who, apart from the signals of the
// terminal and from the settings of whoever runs the test.
func command(dir string, who *syscall.Credential, path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Setpgid: true}
	return cmd
}

// newFolder makes a folder of the server's. Its name is short: the path of a
// socket has at most 107 bytes.
func newFolder(who *syscall.Credential) (string, error) {
	base := os.TempDir()
	if len(base) > 60 {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "rbpg")
	if err != nil || who == nil {
		return dir, err
	}
	return dir, os.Chown(dir, int(who.Uid), int(who.Gid))
}

// The cluster that others are copied from: initdb takes ten times as long as a copy.
var template struct {
	sync.Mutex
	dir string // empty until it is there
}

// newCluster fills data with an empty cluster.
func newCluster(bin installation, dir, data string, who *syscall.Credential) error {
	template.Lock()
	defer template.Unlock()
	if template.dir == "" {
		if err := initdb(bin, dir, data, who); err != nil {
			return err
		}
		return keepTemplate(data, who)
	}
	return copyFolder(template.dir, data, who)
}

func initdb(bin installation, dir, data string, who *syscall.Credential) error {
	cmd := command(dir, who, filepath.Join(string(bin), "initdb"), "-D", data, "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// keepTemplate copies data to a folder that has a watchdog but no server.
func keepTemplate(data string, who *syscall.Credential) error {
	dir, err := newFolder(who)
	if err != nil {
		return err
	}
	if _, err := newWatchdog(dir); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if err := copyFolder(data, filepath.Join(dir, "data"), who); err != nil {
		return err
	}
	template.dir = filepath.Join(dir, "data")
	return nil
}

func copyFolder(from, to string, who *syscall.Credential) error {
	if out, err := command(filepath.Dir(to), who, "cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the cluster: %w\n%s", err, out)
	}
	return nil
}
