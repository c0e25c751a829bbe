package crashtest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// program builds the program with its crash points and returns where it is.
func program(t *testing.T) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rapidbyte-node")
	out, err := exec.Command("go", "build", "-tags", "failpoints", "-buildvcs=false", "-o", path, "rapidbyte.io/node/cmd/rapidbyte-node").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
}
