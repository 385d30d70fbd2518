/* What makes a record in host memory valid; the header alone is judged by rules/call.h. */
#ifndef GS_RECORD_H
#define GS_RECORD_H

#include "core.h"

/* Over h->recordBytes, which must be there. */
uint64_t gsRecordChecksum(const uint8_t *record, const gsRecordHeader *h);

/* Tables and indices of a record whose header and list have passed: GS_FAULT_. */
uint32_t gsRecordStructureFault(const uint8_t *record, const gsRecordHeader *h, const gsRecordSegment *segment,
                                const gsRecordExtent *extent);

#endif
