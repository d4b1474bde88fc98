/* aw_meter: see the header. */
#include "aw_meter.h"

#include "aw_error.h"

static int ask(aw_meter *meter, aw_error *err)
{
    char reason[AW_ERROR_DETAIL_MAX] = "";

    if (meter->hooks->progress(meter->hooks->context, &meter->now, reason, sizeof reason) == 0)
        return 0;
    return aw_fail_cancelled(err, reason);
}

bool aw_meter_calls(const aw_meter *meter)
{
    return meter->hooks && meter->hooks->progress;
}

static int tell(aw_meter *meter, aw_error *err)
{
    meter->untold = 0;
    return aw_meter_calls(meter) ? ask(meter, err) : 0;
}

int aw_meter_begin(aw_meter *meter, aw_phase phase, size_t total, aw_error *err)
{
    meter->now = (aw_progress) { phase, 0, total, 0 };
    return tell(meter, err);
}

int aw_meter_files(aw_meter *meter, size_t count, aw_error *err)
{
    meter->now.files += count;
    return tell(meter, err);
}

int aw_meter_bytes(aw_meter *meter, size_t bytes, aw_error *err)
{
    enum { OFTEN = 1 << 20 };

    meter->now.bytes += bytes;
    meter->untold += bytes;
    return meter->untold >= OFTEN ? tell(meter, err) : 0;
}
