package rowcheck

import (
	"testing"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
