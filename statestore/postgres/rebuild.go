package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/messages"
)

// setAside moves everything of a damaged pipeline into the table aside, and begins an
// empty one. An epoch that was handed out is not handed out again, so it is taken from
// wherever it can still be read.
func (k *claim) setAside(ctx context.Context, i image) error {
	b := &pgx.Batch{}
	for _, from := range []kind{kindReceipt, kindLoad, kindRun, kindOrder, kindHistory} {
		b.Queue(fmt.Sprintf(`WITH gone AS (DELETE FROM _rapidbyte_state.%s WHERE pipeline = $1 RETURNING pipeline, id, value, sum)
			INSERT INTO _rapidbyte_state.aside (at, kind, pipeline, id, value, sum)
			SELECT clock_timestamp(), '%s', pipeline, id, value, sum FROM gone`, from, from), k.id)
	}
	b.Queue(`INSERT INTO _rapidbyte_state.aside (at, kind, pipeline, id, value, sum)
		SELECT clock_timestamp(), 'pipeline', id, id, value, sum FROM _rapidbyte_state.pipeline WHERE id = $1`, k.id)
	var epoch messages.Epoch
	for _, c := range i.pipeline {
		var r pipelineRecord
		if json.Unmarshal([]byte(c.value), &r) == nil {
			epoch = r.Epoch
		}
	}
	k.record = pipelineRecord{Epoch: epoch}
	k.st.Pipelines = i.pipelines // take adds one if it is not among them
	return k.conn.SendBatch(ctx, b).Close()
}
