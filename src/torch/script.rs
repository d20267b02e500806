//! TorchScript around a traced module.

use super::TorchError;
use super::ffi;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tch::Tensor;

/// Replaces the module in the file `path` by one that has it as `self.network`, `buffers` under their names, and
/// the methods that `source` defines, in TorchScript.
///
/// # Errors
/// What libtorch says of the file or of the source.
pub fn enclose(path: &Path, source: &str, buffers: &[(&str, &Tensor)]) -> Result<(), TorchError> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| TorchError("a text holds a zero byte".into()));
    let (path, source) = (text(path.as_os_str().as_bytes())?, text(source.as_bytes())?);
    let names = buffers.iter().map(|(name, _)| text(name.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let tensors = ffi::pointers(buffers.iter().map(|(_, tensor)| *tensor));
    // SAFETY: texts end with a zero byte, both arrays have as many entries as is said, and all outlive the call.
    ffi::check(unsafe {
        ffi::segdist_enclose_script(path.as_ptr(), source.as_ptr(), names.as_ptr(), tensors.as_ptr(), names.len())
    })
}
