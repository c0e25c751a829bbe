package postgres_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres"
)

func TestOneDatabaseIsRecognisedByItsText(t *testing.T) {
	dsn := func(text string) postgres.Connection { return postgres.Connection{DSN: connectors.NewSecret(text)} }
	named := postgres.Connection{Host: "DB", User: "app", Database: "shop"}
	for _, c := range []struct {
		a, b postgres.Connection
		same bool
	}{
		{named, named, true},
		{named, dsn("postgres://other:pw@db:5432/shop?sslmode=require"), true},
		{named, dsn("host=db dbname=shop user=x"), true},
		{dsn("postgres://a@127.0.0.1/shop"), dsn("postgres://a@localhost/shop"), true},
		{dsn("postgres://shop@h"), dsn("postgres://shop@h/shop"), true},
		{named, dsn("postgres://app@db:5433/shop"), false},
		{named, dsn("postgres://app@db/dw"), false},
		{named, dsn("postgres://app@wh/shop"), false},
	} {
		require.Equal(t, c.same, postgres.SameDatabase(postgres.SourceConfig{Connection: c.a}, postgres.DestinationConfig{Connection: c.b}), "%v %v", c.a.Host, c.b.Host)
	}
}
