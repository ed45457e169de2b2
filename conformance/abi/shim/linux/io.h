#include "../shim_uio_msi.h"
