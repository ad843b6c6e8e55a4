//! The compiled object: its programs by section, and the one thing in it that the loader library can't relocate.
//!
//! The programs call the kernel function `bpf_rdonly_cast`, whose BTF id is known only on the host. The C side emits that call
//! as eight fixed bytes; [`resolve_casts`] gives them their meaning before the object is loaded.

use crate::Error;

/// `call kfunc 0x7ead0001`: BPF_JMP|BPF_CALL, src_reg BPF_PSEUDO_KFUNC_CALL, off 0 (vmlinux), imm.
const CAST: [u8; 8] = [0x85, 0x20, 0x00, 0x00, 0x01, 0x00, 0xad, 0x7e];

/// `r0 = r1`: what the call does, without the change of type.
const MOVE: [u8; 8] = [0xbf, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00];

const SHF_EXECINSTR: u64 = 0x4;
const SHT_SYMTAB: u32 = 2;
const STT_FUNC: u8 = 2;
const STB_GLOBAL: u8 = 1;

/// Sections at most; ours has about a hundred.
const MAX_SECTIONS: usize = 4096;

/// An ELF file of the BPF machine, 64 bits, in the byte order of this host.
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
    sections: Vec<Section<'a>>,
}

#[derive(Clone, Copy)]
struct Section<'a> {
    name: &'a str,
    kind: u32,
    flags: u64,
    offset: usize,
    size: usize,
    link: usize,
}

impl<'a> Elf<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Elf<'a>, Error> {
        Self::read(bytes).ok_or_else(|| Error::Object("it is not a whole ELF object".to_owned()))
    }

    fn read(bytes: &'a [u8]) -> Option<Elf<'a>> {
        // ELFCLASS64; the other fields of the identification are the loader's business.
        if bytes.get(..5)? != b"\x7fELF\x02" {
            return None;
        }
        let table = usize::try_from(u64_at(bytes, 0x28)?).ok()?;
        let (count, names) = (usize::from(u16_at(bytes, 0x3c)?), usize::from(u16_at(bytes, 0x3e)?));
        if count > MAX_SECTIONS {
            return None;
        }
        let header = |index: usize| bytes.get(table.checked_add(index * 64)?..)?.get(..64);
        let place = |h: &[u8]| {
            let (offset, size) = (u64_at(h, 0x18)?, u64_at(h, 0x20)?);
            Some((usize::try_from(offset).ok()?, usize::try_from(size).ok()?))
        };
        let (start, size) = place(header(names)?)?;
        let strings = bytes.get(start..start.checked_add(size)?)?;
        let sections = (0..count).map(|index| {
            let h = header(index)?;
            let (offset, size) = place(h)?;
            Some(Section {
                name: string_at(strings, u32_at(h, 0)?)?,
                kind: u32_at(h, 4)?,
                flags: u64_at(h, 8)?,
                offset,
                size,
                link: u32_at(h, 0x28)? as usize,
            })
        });
        let sections = sections.collect::<Option<Vec<_>>>()?;
        Some(Elf { bytes, sections })
    }

    /// The bytes of a section.
    #[cfg(test)]
    pub(crate) fn section(&self, name: &str) -> Option<&'a [u8]> {
        self.sections.iter().find(|s| s.name == name).and_then(|s| self.content(s))
    }

    fn content(&self, section: &Section<'_>) -> Option<&'a [u8]> {
        self.bytes.get(section.offset..section.offset.checked_add(section.size)?)
    }

    /// Global functions outside of `.text`: (section, function). These are the programs.
    pub(crate) fn programs(&self) -> Vec<(&'a str, &'a str)> {
        let Some(table) = self.sections.iter().find(|s| s.kind == SHT_SYMTAB) else {
            return Vec::new();
        };
        let (Some(symbols), Some(strings)) = (self.content(table), self.sections.get(table.link).and_then(|s| self.content(s)))
        else {
            return Vec::new();
        };
        symbols
            .chunks_exact(24)
            .filter(|symbol| symbol[4] == STB_GLOBAL << 4 | STT_FUNC)
            .filter_map(|symbol| {
                let section = self.sections.get(usize::from(u16_at(symbol, 6)?))?;
                let code = section.flags & SHF_EXECINSTR != 0 && section.name != ".text";
                code.then_some((section.name, string_at(strings, u32_at(symbol, 0)?)?))
            })
            .collect()
    }

    /// Where the placeholder calls are, as offsets in the file.
    fn casts(&self) -> Vec<usize> {
        let code = self.sections.iter().filter(|s| s.flags & SHF_EXECINSTR != 0);
        code.filter_map(|s| Some((s.offset, self.content(s)?)))
            .flat_map(|(start, bytes)| {
                let at = bytes.chunks_exact(8).enumerate().filter(|(_, insn)| **insn == CAST);
                at.map(move |(index, _)| start + index * 8)
            })
            .collect()
    }
}

/// The object with each placeholder call made for this host: a call of the function with that BTF id, or where the kernel has
/// none, a plain move. The branch with the call is never taken then, but the kernel looks its functions up before it prunes
/// dead code (kernel/bpf/verifier.c `add_subprog_and_kfunc`), so the call must go.
pub(crate) fn resolve_casts(object: &[u8], cast: Option<u32>) -> Result<Vec<u8>, Error> {
    let places = Elf::parse(object)?.casts();
    let mut object = object.to_vec();
    for place in places {
        match cast {
            Some(id) => object[place + 4..place + 8].copy_from_slice(&id.to_le_bytes()),
            None => object[place..place + 8].copy_from_slice(&MOVE),
        }
    }
    Ok(object)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn string_at(strings: &[u8], at: u32) -> Option<&str> {
    let text = strings.get(at as usize..)?;
    let end = text.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&text[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of two sections: the names, and `code` in one that holds instructions.
    fn object(code: &[u8], flags: u64) -> Vec<u8> {
        let names = b"\0lsm/x\0.s\0";
        let (names_at, code_at) = (64usize, 64 + 16);
        let table = code_at + code.len();
        let mut file = vec![0u8; table + 3 * 64];
        file[..5].copy_from_slice(b"\x7fELF\x02");
        file[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        file[0x3c] = 3;
        file[0x3e] = 1;
        file[names_at..names_at + names.len()].copy_from_slice(names);
        file[code_at..table].copy_from_slice(code);
        let mut section = |index: usize, name: u32, flags: u64, offset: usize, size: usize| {
            let header = &mut file[table + index * 64..][..64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[8..16].copy_from_slice(&flags.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
        };
        section(1, 7, 0, names_at, names.len());
        section(2, 1, flags, code_at, code.len());
        file
    }

    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn a_cast_gets_the_id_of_the_host() {
        let file = object(&[EXIT, CAST, EXIT].concat(), SHF_EXECINSTR);
        let made = resolve_casts(&file, Some(0x0102_0304)).expect("a whole object");
        assert_eq!(made[88..96], [0x85, 0x20, 0, 0, 4, 3, 2, 1]);
        assert_eq!(made.len(), file.len());
        assert_eq!(made[..88], file[..88]);
        assert_eq!(made[96..], file[96..]);
    }

    #[test]
    fn without_the_function_a_cast_becomes_a_move() {
        let file = object(&[CAST, EXIT].concat(), SHF_EXECINSTR);
        let made = resolve_casts(&file, None).expect("a whole object");
        assert_eq!(made[80..88], MOVE);
        assert!(Elf::parse(&made).expect("still whole").casts().is_empty());
    }

    #[test]
    fn data_and_unaligned_bytes_are_left_alone() {
        let data = object(&[CAST, EXIT].concat(), 0);
        assert_eq!(resolve_casts(&data, Some(7)).expect("whole"), data);
        let mut code = vec![0u8; 4];
        code.extend(CAST);
        code.extend([0u8; 4]);
        let unaligned = object(&code, SHF_EXECINSTR);
        assert_eq!(resolve_casts(&unaligned, Some(7)).expect("whole"), unaligned);
    }

    #[test]
    fn a_damaged_object_is_an_error() {
        let whole = object(&EXIT, SHF_EXECINSTR);
        for end in [0, 4, 63, 64, 80, whole.len() - 1] {
            assert!(Elf::parse(&whole[..end]).is_err(), "{end} bytes");
        }
        let mut far = whole.clone();
        far[0x28..0x30].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Elf::parse(&far).is_err());
    }
}
