//! Where a network under construction puts its tensors: `&(p / "layer1") / 0` names them as the reference does.

use super::init::Initial;
use super::layers::{BatchNorm2d, Role, Store, Variable};
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Div;
use tch::{Device, Kind, Tensor};

/// What a network's layers are put into while it is built.
pub(super) struct Builder {
    pub store: Store,
    pub norms: Vec<BatchNorm2d>,
    /// Weights of the convolutions before them, in the same order, where there is one.
    pub normed: Vec<Option<Tensor>>,
    pub device: Device,
    pub values: Values,
    /// MODEL.bn_momentum: replaces every layer's own.
    pub momentum: Option<f64>,
}

/// What weights hold at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Values drawn by the initialisers.
    Drawn,
    /// Zero, for a caller who has others.
    Zero,
    /// Nothing: they have their sizes, but no memory, and cannot be written.
    Absent,
}

/// A dotted name under which layers are created, and how their first values are drawn.
pub struct Path<'a> {
    pub(super) builder: &'a RefCell<Builder>,
    pub(super) initial: Initial,
    name: String,
    above: u32,
}

impl<'a> Path<'a> {
    /// The top of an encoder or decoder.
    pub(super) fn new(builder: &'a RefCell<Builder>, name: &str, initial: Initial) -> Self {
        Path { builder, initial, name: name.to_string(), above: 0 }
    }

    /// The same place, with so many layers between it and the decoder; see [`Variable::above`].
    pub fn under(&self, layers: usize) -> Path<'a> {
        Path { builder: self.builder, initial: self.initial, name: self.name.clone(), above: layers as u32 }
    }

    /// Moves a parameter to the network's device and makes it a leaf that collects gradients.
    pub fn parameter(&self, name: &str, value: Tensor, role: Role) -> Tensor {
        let device = self.builder.borrow().device;
        self.insert(name, value.to_device(device).set_requires_grad(true), role)
    }

    /// A parameter with a first value of `size` by the path's rule; zero in a network whose caller has values of his own.
    pub fn drawn(&self, name: &str, size: &[i64], role: Role, draw: impl FnOnce(Initial) -> Tensor) -> Tensor {
        let values = self.builder.borrow().values;
        let value = match values {
            Values::Drawn => draw(self.initial),
            Values::Zero => Tensor::zeros(size, (Kind::Float, Device::Cpu)),
            Values::Absent => Tensor::zeros(vec![1; size.len()], (Kind::Float, Device::Cpu)).expand(size, false),
        };
        self.parameter(name, value, role)
    }

    /// Moves a buffer to the network's device.
    pub fn buffer(&self, name: &str, value: Tensor) -> Tensor {
        let device = self.builder.borrow().device;
        self.insert(name, value.to_device(device), Role::Buffer)
    }

    fn insert(&self, name: &str, tensor: Tensor, role: Role) -> Tensor {
        let (name, above) = (format!("{}.{name}", self.name), self.above);
        let variable = Variable { name, tensor: tensor.shallow_clone(), role, above };
        self.builder.borrow_mut().store.variables.push(variable);
        tensor
    }
}

impl<'a, Name: Display> Div<Name> for &Path<'a> {
    type Output = Path<'a>;

    fn div(self, name: Name) -> Path<'a> {
        Path { builder: self.builder, initial: self.initial, name: format!("{}.{name}", self.name), above: self.above }
    }
}

impl<'a, Name: Display> Div<Name> for Path<'a> {
    type Output = Path<'a>;

    fn div(self, name: Name) -> Path<'a> {
        &self / name
    }
}
