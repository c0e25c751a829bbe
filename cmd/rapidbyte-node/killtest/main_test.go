package killtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir)
	}
	return code
}

var binaryDir string // "" until the program is built

// program builds the program, once, and returns where it is. RB_PROGRAM names one that
// is built.
var program = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("RB_PROGRAM"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "rapidbyte-kill-bin-")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "rapidbyte-node")
	out, err := exec.Command("go", "build", "-tags", "duckdb_arrow", "-buildvcs=false", "-o", path, "rapidbyte.io/node/cmd/rapidbyte-node").CombinedOutput()
	if err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	return path, nil
})

// envInt reads a number from the environment.
func envInt(t *testing.T, name string, missing int) int {
	t.Helper()
	text, ok := os.LookupEnv(name)
	if !ok {
		return missing
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	require.GreaterOrEqual(t, n, 0, name)
	return n
}
