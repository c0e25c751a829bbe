//go:build unix

package duckdb

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/connectors"
)

// limitFiles makes writes fail beyond 2 MB, as a full disk does.
func limitFiles() {
	signal.Ignore(unix.SIGXFSZ)
	limit := unix.Rlimit{Cur: 2 << 20, Max: 2 << 20}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		panic(err)
	}
}

func TestFullDiskLeavesRowsAndReceiptsEqual(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.duckdb")
	for epoch := 1; epoch <= 2; epoch++ {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", childEnv, fullDisk, 1000*epoch, path))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		require.NoError(t, err, string(out))
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		require.Equal(t, "ended RB-5004 transient", lines[len(lines)-1])
		checkCrash(t, connectors.ModeAppend, path, epoch+1, lines)
	}
}
