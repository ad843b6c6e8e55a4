//! The file as YAML: its leaves, one after the other.

use saphyr_parser::{Event, Marker, Parser};

use super::{LISTS, list};

/// A leaf of the file, by the names that lead to it.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) value: String,
    /// The values of a list; then there is no other.
    pub(super) list: Option<Vec<String>>,
    pub(super) at: (usize, usize),
}

pub(super) type Wrong = ((usize, usize), String);

/// Flattens mappings of mappings of scalars; anything else is wrong, but for the lists.
pub(super) fn fields(text: &str) -> Result<Vec<Field>, Wrong> {
    let mut fields: Vec<Field> = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut key: Option<(String, (usize, usize))> = None;
    let mut open_list: Option<Field> = None;
    let mut depth = 0usize;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| (place(*error.marker()), format!("this is not YAML: {}", error.info())))?;
        let at = place(span.start);
        match event {
            Event::MappingStart(..) if open_list.is_some() => {
                let of = open_list
                    .as_ref()
                    .and_then(|field| list(&field.name))
                    .map(|(name, of, _)| format!("{name} is a list of {of}"));
                return Err((at, of.unwrap_or_default()));
            }
            Event::MappingStart(..) => {
                depth += 1;
                match key.take() {
                    Some((name, _)) => path.push(name),
                    None if depth > 1 => return Err((at, "a field cannot be a mapping".to_owned())),
                    None => {}
                }
            }
            Event::MappingEnd => {
                depth -= 1;
                path.pop();
            }
            // What an empty document is to YAML.
            Event::Scalar(value, ..) if depth == 0 && (value.is_empty() || value == "~") => {}
            Event::Scalar(..) if depth == 0 => {
                return Err((at, "the file is a mapping of fields, like `failPolicy: enforce`".to_owned()));
            }
            Event::Scalar(value, ..) => match (&mut open_list, key.take()) {
                (Some(list), _) => list.list.get_or_insert_default().push(value.into_owned()),
                (None, None) => key = Some((value.into_owned(), at)),
                (None, Some((name, _))) => {
                    let name = full_name(&fields, &path, &name).map_err(|message| (at, message))?;
                    fields.push(Field { name, value: value.into_owned(), list: None, at });
                }
            },
            Event::SequenceStart(..) => {
                let name = key.take().map(|(name, _)| full_name(&fields, &path, &name)).transpose();
                match name.map_err(|message| (at, message))? {
                    Some(name) if list(&name).is_some() && open_list.is_none() => {
                        open_list = Some(Field { name, value: String::new(), list: Some(Vec::new()), at });
                    }
                    _ => return Err((at, format!("no field but {} is a list", LISTS.map(|(name, ..)| name).join(", ")))),
                }
            }
            Event::SequenceEnd => fields.extend(open_list.take()),
            Event::Alias(_) => return Err((at, "aliases are not supported here; write the value".to_owned())),
            _ => {}
        }
    }
    Ok(fields)
}

/// A field by all the names that lead to it. None may be there twice.
fn full_name(fields: &[Field], path: &[String], name: &str) -> Result<String, String> {
    let name = path.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".");
    if fields.iter().any(|field| field.name == name) { Err(format!("{name} is there twice; remove one")) } else { Ok(name) }
}

fn place(marker: Marker) -> (usize, usize) {
    (marker.line(), marker.col() + 1)
}
