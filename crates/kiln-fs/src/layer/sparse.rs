//! Maps of sparse files in archives.

use std::io::Read;

use super::header::BLOCK;
use super::pax::number;
use super::{Result, TarReader};

/// How many pieces a map may have.
pub(super) const MAX_PIECES: usize = 1 << 20;

/// Says whether the pieces are in order, inside the file, and add up to the data there is.
pub(super) fn is_sound(map: &[(u64, u64)], real_size: u64, data: u64) -> bool {
    let mut at = 0;
    let mut total = 0u64;
    for &(offset, length) in map {
        let Some(end) = offset.checked_add(length) else { return false };
        if offset < at || end > real_size {
            return false;
        }
        at = end;
        total += length;
    }
    total == data
}

/// Reads the map that version 1.0 puts before the data: decimal numbers, one a line, in whole blocks.
pub(super) fn map_in_data<R: Read>(reader: &mut TarReader<R>) -> Result<Vec<(u64, u64)>> {
    let mut lines = Lines { reader, block: [0; BLOCK], at: BLOCK };
    let count = lines.number()?;
    if count > MAX_PIECES as u64 {
        return Err(lines.reader.bad_map());
    }
    let mut map = Vec::new();
    for _ in 0..count {
        map.push((lines.number()?, lines.number()?));
    }
    Ok(map)
}

struct Lines<'a, R> {
    reader: &'a mut TarReader<R>,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: Read> Lines<'_, R> {
    fn number(&mut self) -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            if self.at == BLOCK {
                self.refill()?;
            }
            let byte = self.block[self.at];
            self.at += 1;
            if byte == b'\n' {
                return number(&digits).ok_or_else(|| self.reader.bad_map());
            }
            digits.push(byte);
            if digits.len() > 20 {
                return Err(self.reader.bad_map());
            }
        }
    }

    fn refill(&mut self) -> Result<()> {
        if self.reader.left() < BLOCK as u64 {
            return Err(self.reader.bad_map());
        }
        let mut filled = 0;
        while filled < BLOCK {
            filled += self.reader.read_data(&mut self.block[filled..])?;
        }
        self.at = 0;
        Ok(())
    }
}
