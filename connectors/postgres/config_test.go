package postgres_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres"
)

func parts() postgres.Connection {
	return postgres.Connection{Host: "db.internal", Port: 5432, User: "app", Password: connectors.NewSecret("pw"), Database: "shop"}
}

func paths(p []connectors.Problem) []string {
	out := []string{}
	for _, x := range p {
		out = append(out, x.Path)
	}
	return out
}

func TestSoundConfigHasNoProblems(t *testing.T) {
	require.Empty(t, postgres.SourceConfig{Connection: parts(), Schema: "public", ReplicationSlot: "rb_shop", Publication: "rb shop"}.Problems())
	require.Empty(t, postgres.DestinationConfig{Connection: parts(), Schema: "raw"}.Problems())
	for _, dsn := range []string{
		"postgres://app:pw@db:5432/shop?sslmode=require", "postgresql:///shop?host=/run/postgresql",
		"host=db user=app password='p w' dbname=shop", `host=db password=a\'b`, "host=db password=",
	} {
		c := postgres.SourceConfig{Connection: postgres.Connection{DSN: connectors.NewSecret(dsn)}, Schema: "public"}
		require.Empty(t, c.Problems(), dsn)
	}
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	c := postgres.SourceConfig{
		Connection:      postgres.Connection{Host: "postgres://u:p@h", SSLMode: "disable", SSLCert: "c.pem", StatementTimeout: -1},
		Schema:          strings.Repeat("s", 64),
		ReplicationSlot: "Rb-Shop",
		Publication:     "a\x00b",
		ReadTimeout:     -1,
		AsText:          []string{"timestamptz", " "},
	}
	require.Equal(t, []string{
		"user", "database", "host", "sslcert", "sslmode", "statement_timeout", "schema", "replication_slot", "publication", "as_text[1]", "read_timeout",
	}, paths(c.Problems()))
}

func TestPartsAndDSNExcludeEachOther(t *testing.T) {
	c := parts()
	c.DSN = connectors.NewSecret("postgres://h/d")
	require.Equal(t, []string{"dsn"}, paths(postgres.SourceConfig{Connection: c, Schema: "public"}.Problems()))
}

func TestReservedSchemaIsRefused(t *testing.T) {
	for _, schema := range []string{"pg_catalog", "information_schema", "_rapidbyte", " "} {
		require.Equal(t, []string{"schema"}, paths(postgres.DestinationConfig{Connection: parts(), Schema: schema}.Problems()), schema)
	}
}

func TestProblemsRepeatNoSecret(t *testing.T) {
	const canary = "hunter2"
	for _, dsn := range []string{canary, "postgres://u:" + canary + "@h/%zz", "postgres://u:" + canary + "@h/d#f", "password=" + canary + " '"} {
		c := postgres.Connection{Host: "u:" + canary + "@h", DSN: connectors.NewSecret(dsn), Password: connectors.NewSecret(canary)}
		p := postgres.DestinationConfig{Connection: c, Schema: "raw"}.Problems()
		require.NotEmpty(t, p)
		require.NotContains(t, fmt.Sprintf("%+v %+v", p, c.DSN), canary, dsn)
		require.Contains(t, paths(p), "host")
		require.GreaterOrEqual(t, len(p), 3, "mixed, malformed and host: %v", p)
	}
}
