package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// Check looks at the server and plans each stream.
func (s *Source) Check(ctx context.Context, streams []connectors.StreamSpec) ([]connectors.Finding, error) {
	var out []connectors.Finding
	err := s.inspect(ctx, "check the source", func(conn *pgx.Conn) error {
		p := &scanPlanner{source: s, conn: conn}
		facts, err := readFacts(ctx, conn)
		if err != nil {
			return err
		}
		if facts.version < versionMin {
			return tooOld(facts.version)
		}
		p.facts = facts
		standby, err := p.checkStandby(ctx)
		if err != nil {
			return err
		}
		out = append(out, standby...)
		relations, err := s.resolve(ctx, conn, streams)
		if err != nil {
			return err
		}
		for i, spec := range streams {
			found, err := p.check(ctx, spec, relations[i])
			if f, ok := finding(err); ok {
				found = append(found, f)
			} else if err != nil {
				return err
			}
			out = append(out, found...)
		}
		return nil
	})
	if f, ok := finding(err); ok {
		return append(out, f), nil
	}
	return out, err
}

// checkStandby notes a server that replays another one.
func (p *scanPlanner) checkStandby(ctx context.Context) ([]connectors.Finding, error) {
	var standby bool
	if err := p.conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby); err != nil || !standby {
		return nil, err
	}
	return []connectors.Finding{{
		Severity: connectors.SeverityNote, Where: messages.Place{Stage: connectors.StageSource},
		Message: "the server is a hot standby: what it replays can end a long read",
		Remedy:  "Set hot_standby_feedback = on, or raise max_standby_streaming_delay there.",
	}}, nil
}

// check looks at one stream.
func (p *scanPlanner) check(ctx context.Context, spec connectors.StreamSpec, rel *relation) ([]connectors.Finding, error) {
	d, err := p.source.describe(ctx, p.conn, spec, rel)
	if err != nil {
		return nil, err
	}
	var out []connectors.Finding
	add := func(severity connectors.Severity, code messages.Code, field, message, remedy string) {
		out = append(out, connectors.Finding{
			Severity: severity, Code: code, Message: message, Remedy: remedy,
			Where: messages.Place{Stream: spec.Stream, Stage: connectors.StageSource, Field: field},
		})
	}
	name := query.Qualified(rel.schema, rel.name)
	if rel.unlogged {
		add(connectors.SeverityNote, "", "", fmt.Sprintf("%s is unlogged: a crash of the server empties it", name), "")
	}
	if rel.kind == kindForeign {
		add(connectors.SeverityNote, "", "", fmt.Sprintf("%s is a foreign table: whether all of it is read at one moment is up to its wrapper", name), "")
	}
	if spec.PartitionKey != "" {
		if _, err := p.partitionKey(ctx, d); err != nil {
			return out, err
		}
	}
	switch spec.Sync {
	case connectors.SyncFullRefresh, "":
		return out, nil
	case connectors.SyncIncremental:
	default:
		return out, noSyncMode(spec)
	}
	keys, err := p.keys(ctx, d)
	if err != nil {
		return out, err
	}
	if d.strict() {
		if err := p.requireStrict(ctx, []*described{d}); err != nil {
			return out, err
		}
	}
	cursor, _ := rel.column(keys[0].Column)
	if d.strict() && isTime(keys[0].Cursor) {
		add(connectors.SeverityWarning, messages.CodeValueRange, cursor.Name,
			fmt.Sprintf("cursor_mode strict cannot see who writes times of the past to %q: now() is when the transaction began, and one that writes only after the scan is missed", cursor.Name),
			"Set cursor_mode lookback, longer than transactions last, with write_mode upsert.")
	}
	if !cursor.NotNull && (spec.NullCursor == "" || spec.NullCursor == "fail") {
		add(connectors.SeverityWarning, messages.CodeValueRange, cursor.Name, fmt.Sprintf("cursor column %q may be NULL: a row without a cursor stops the run", cursor.Name),
			"Set it NOT NULL, or set null_cursor to first or ignore.")
	}
	if !slices.Contains(rel.leading, cursor.Name) && (rel.kind == kindTable || rel.kind == kindPartitioned || rel.kind == kindMaterialised) {
		add(connectors.SeverityNote, "", cursor.Name, fmt.Sprintf("no index leads with cursor column %q: each run sorts the whole table", cursor.Name),
			"CREATE INDEX ON "+name+" ("+query.Ident(cursor.Name)+");")
	}
	if len(keys) == 1 && !d.unique(keys) {
		add(connectors.SeverityWarning, messages.CodeSchemaColumn, "tie_breaker_field",
			fmt.Sprintf("%s has no primary key: rows that get the cursor %q of the last row that was read are missed", name, cursor.Name), "Set tie_breaker_field to a unique column that grows.")
	}
	return out, nil
}
