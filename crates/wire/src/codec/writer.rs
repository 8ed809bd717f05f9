//! Values to bytes.

use alloc::vec::Vec;

use serde::{Serialize, ser};

use super::Fault;

/// The bytes so far.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    fn varint(&mut self, value: u64) {
        put_varint(&mut self.bytes, value);
    }

    fn count(&mut self, count: usize) {
        self.varint(count as u64);
    }

    /// Begins something that says its length, which is known at its end.
    fn grows(&mut self) -> Growing<'_> {
        let start = self.bytes.len();
        self.bytes.push(0);
        Growing {
            writer: self,
            start,
        }
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
}

/// The number without its sign: 0, −1, 1, −2 … become 0, 1, 2, 3 …
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// A struct whose fields are being written.
pub(super) struct Growing<'a> {
    writer: &'a mut Writer,
    /// Where its length stands: one byte until more are needed.
    start: usize,
}

impl Growing<'_> {
    fn finish(self) {
        let Self { writer, start } = self;
        let length = writer.bytes.len().saturating_sub(start).saturating_sub(1);
        let mut varint = Vec::with_capacity(4);
        put_varint(&mut varint, length as u64);
        writer.bytes.splice(start..start.saturating_add(1), varint);
    }
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Growing<'a>;
    type SerializeStructVariant = Growing<'a>;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, value: bool) -> Result<(), Fault> {
        self.serialize_u8(u8::from(value))
    }
    fn serialize_i8(self, value: i8) -> Result<(), Fault> {
        self.serialize_u8(value.cast_unsigned())
    }
    fn serialize_i16(self, value: i16) -> Result<(), Fault> {
        self.serialize_i64(value.into())
    }
    fn serialize_i32(self, value: i32) -> Result<(), Fault> {
        self.serialize_i64(value.into())
    }
    fn serialize_i64(self, value: i64) -> Result<(), Fault> {
        self.varint(zigzag(value));
        Ok(())
    }
    fn serialize_u8(self, value: u8) -> Result<(), Fault> {
        self.bytes.push(value);
        Ok(())
    }
    fn serialize_u16(self, value: u16) -> Result<(), Fault> {
        self.serialize_u64(value.into())
    }
    fn serialize_u32(self, value: u32) -> Result<(), Fault> {
        self.serialize_u64(value.into())
    }
    fn serialize_u64(self, value: u64) -> Result<(), Fault> {
        self.varint(value);
        Ok(())
    }
    fn serialize_f32(self, _value: f32) -> Result<(), Fault> {
        Err(Fault::FORMLESS)
    }
    fn serialize_f64(self, _value: f64) -> Result<(), Fault> {
        Err(Fault::FORMLESS)
    }
    fn serialize_char(self, _value: char) -> Result<(), Fault> {
        Err(Fault::FORMLESS)
    }
    fn serialize_str(self, value: &str) -> Result<(), Fault> {
        self.serialize_bytes(value.as_bytes())
    }
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Fault> {
        self.count(value.len());
        self.bytes.extend_from_slice(value);
        Ok(())
    }
    fn serialize_none(self) -> Result<(), Fault> {
        self.serialize_u8(0)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fault> {
        self.bytes.push(1);
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), Fault> {
        Ok(())
    }
    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Fault> {
        Ok(())
    }
    fn serialize_unit_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
    ) -> Result<(), Fault> {
        self.serialize_u32(index)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.varint(index.into());
        value.serialize(self)
    }
    fn serialize_seq(self, length: Option<usize>) -> Result<Self, Fault> {
        self.count(length.ok_or(Fault::FORMLESS)?);
        Ok(self)
    }
    fn serialize_tuple(self, _length: usize) -> Result<Self, Fault> {
        Ok(self)
    }
    fn serialize_tuple_struct(self, _name: &'static str, _length: usize) -> Result<Self, Fault> {
        Ok(self)
    }
    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self, Fault> {
        self.varint(index.into());
        Ok(self)
    }
    fn serialize_map(self, length: Option<usize>) -> Result<Self, Fault> {
        self.count(length.ok_or(Fault::FORMLESS)?);
        Ok(self)
    }
    fn serialize_struct(
        self,
        _name: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeStruct, Fault> {
        Ok(self.grows())
    }
    fn serialize_struct_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeStructVariant, Fault> {
        self.varint(index.into());
        Ok(self.grows())
    }
}

/// Elements one after the other, with nothing between.
macro_rules! elements {
    ($($trait:ident :: $element:ident),*) => {
        $(
            impl ser::$trait for &mut Writer {
                type Ok = ();
                type Error = Fault;
                fn $element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                    value.serialize(&mut **self)
                }
                fn end(self) -> Result<(), Fault> {
                    Ok(())
                }
            }
        )*
    };
}

elements!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

impl ser::SerializeMap for &mut Writer {
    type Ok = ();
    type Error = Fault;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fault> {
        key.serialize(&mut **self)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        value.serialize(&mut **self)
    }
    fn end(self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Named fields, after their length.
macro_rules! fields {
    ($($trait:ident),*) => {
        $(
            impl ser::$trait for Growing<'_> {
                type Ok = ();
                type Error = Fault;
                fn serialize_field<T: Serialize + ?Sized>(
                    &mut self,
                    _name: &'static str,
                    value: &T,
                ) -> Result<(), Fault> {
                    value.serialize(&mut *self.writer)
                }
                fn skip_field(&mut self, _name: &'static str) -> Result<(), Fault> {
                    Err(Fault::FORMLESS)
                }
                fn end(self) -> Result<(), Fault> {
                    self.finish();
                    Ok(())
                }
            }
        )*
    };
}

fields!(SerializeStruct, SerializeStructVariant);
