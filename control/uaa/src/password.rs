//! Passwords as argon2id hashes in PHC's string form.
//!
//! One look takes 40 ms of a core (measured, optimised build) and 19 MiB, on purpose. So looks run on blocking
//! threads and at most two at a time; more wait, which bounds what a guesser can make us spend.

use std::sync::{Arc, OnceLock};

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::config::PasswordCost;
use crate::error::Error;

const AT_ONCE: usize = 2;

/// Hashes and verifies passwords.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    params: Params,
    slots: Arc<Semaphore>,
    nobody: Arc<OnceLock<String>>,
}

impl Passwords {
    pub fn new(cost: PasswordCost) -> Result<Self, Error> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None)
            .map_err(|err| Error::Password(err.to_string()))?;
        Ok(Self { params, slots: Arc::new(Semaphore::new(AT_ONCE)), nobody: Arc::default() })
    }

    pub async fn hash(&self, password: &str) -> Result<String, Error> {
        let (params, password) = (self.params.clone(), password.to_owned());
        self.run(move || hash(&params, &password)).await?
    }

    /// Whether `password` is the one that was hashed. Without a hash (no such user) the answer is no
    /// and takes as long, so that time does not tell which users exist.
    pub async fn verify(&self, password: &str, stored: Option<&str>) -> Result<bool, Error> {
        let (params, password) = (self.params.clone(), password.to_owned());
        let (stored, nobody) = (stored.map(str::to_owned), Arc::clone(&self.nobody));
        self.run(move || {
            let exists = stored.is_some();
            let stored = match stored {
                Some(stored) => stored,
                None => match nobody.get() {
                    Some(hash) => hash.clone(),
                    None => {
                        let made = hash(&params, "")?;
                        nobody.get_or_init(|| made).clone()
                    }
                },
            };
            let same = argon2(&params).verify_password(password.as_bytes(), stored.as_str());
            Ok(same.is_ok() && exists)
        })
        .await?
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        // The permit moves into the work: a caller that goes away does not free a busy slot.
        let permit = Arc::clone(&self.slots).acquire_owned().await;
        let permit = permit.map_err(|err| Error::Password(err.to_string()))?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
        .map_err(|err| Error::Password(err.to_string()))
    }
}

fn argon2(params: &Params) -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
}

fn hash(params: &Params, password: &str) -> Result<String, Error> {
    let hash = argon2(params).hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|err| Error::Password(err.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Passwords {
        Passwords::new(PasswordCost { memory_kib: 64, passes: 1 }).unwrap()
    }

    #[tokio::test]
    async fn only_the_same_password_passes() {
        let passwords = cheap();
        let stored = passwords.hash("secret").await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{stored}");
        assert!(passwords.verify("secret", Some(&stored)).await.unwrap());
        assert!(!passwords.verify("Secret", Some(&stored)).await.unwrap());
        assert!(!passwords.verify("", Some(&stored)).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_has_no_password() {
        let passwords = cheap();
        assert!(!passwords.verify("", None).await.unwrap());
        assert!(!passwords.verify("secret", None).await.unwrap());
    }

    #[tokio::test]
    async fn a_hash_keeps_the_cost_it_was_made_with() {
        let stored = cheap().hash("secret").await.unwrap();
        let dearer = Passwords::new(PasswordCost { memory_kib: 128, passes: 2 }).unwrap();
        assert!(dearer.verify("secret", Some(&stored)).await.unwrap());
    }
}
